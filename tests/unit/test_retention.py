"""Retention keeps what it says, deletes the rest, and nothing else."""

from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rum_core.data.snapshots import MANIFESTS, catalog_path, folder
from rum_core.store.customers import Customers
from rum_core.store.forget import forget
from rum_core.store.layout import Store, StoreError
from rum_core.store.publish import FILE, LATEST, MANIFEST, night_path
from rum_core.store.retention import retain
from rum_core.store.rollback import withdrawn

FIRST = date(2026, 1, 28)


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


def model(number: int) -> str:
    return f"rum-item-{day(number)}-abcdef0123-all"


def snapshot(number: int) -> str:
    return f"{day(number)}-0123456789"


def of_night(store: Store, night: date, trained: int, seen: int, *, lists: bool) -> set[str]:
    """Write what a night leaves; its paths."""
    said = {"model_id": model(trained), "snapshot": snapshot(seen)}
    at = f"run_date={night}"
    store.write_json(f"nights/{at}/train.json", {**said, "evaluated_model_id": model(trained)})
    store.write_json(f"nights/{at}/ingest.json", {"snapshot": snapshot(seen)})
    paths = {f"nights/{at}/train.json", f"nights/{at}/ingest.json"}
    if lists:
        store.write_json(f"{night_path(night)}/{MANIFEST}", {**said, "files": []})
        rest = (
            f"{night_path(night)}/{FILE}",
            f"evaluations/{at}/e.parquet",
            f"reports/{at}/r.html",
        )
        for path in rest:
            store.write_bytes(path, b"x")
        paths |= {f"{night_path(night)}/{MANIFEST}", *rest}
    return paths


def of_model(store: Store, number: int, seen: int) -> set[str]:
    store.write_json(f"models/{model(number)}/config.json", {"snapshot": snapshot(seen)})
    store.write_bytes(f"models/{model(number)}/model.safetensors", b"x")
    store.write_bytes(f"memory/model={model(number)}/m.arrow", b"x")
    return {
        f"models/{model(number)}/config.json",
        f"models/{model(number)}/model.safetensors",
        f"memory/model={model(number)}/m.arrow",
    }


def of_snapshot(store: Store, number: int) -> set[str]:
    name = snapshot(number)
    store.write_json(f"{MANIFESTS}/{name}.json", {"id": name})
    store.write_bytes(f"{folder(name)}/part-00000.parquet", b"x")
    store.write_bytes(catalog_path(name), b"x")
    return {
        f"{MANIFESTS}/{name}.json",
        f"{folder(name)}/part-00000.parquet",
        catalog_path(name),
    }


@settings(max_examples=40, deadline=None)
@given(
    keep=st.integers(2, 6),
    states=st.lists(st.sampled_from(["published", "failed", "withdrawn", "none"]), max_size=14),
    every=st.integers(1, 5),
    data=st.data(),
)
def test_what_is_left_is_what_it_says(
    keep: int, states: list[str], every: int, data: st.DataObject
) -> None:
    with TemporaryDirectory() as root:
        store = Store.open(root)
        store.mark()
        always = {
            "store.json",
            "interactions/batch=b/p.parquet",
            "rejected/batch=b/p.parquet",
            "logs/x.log",
        }
        always |= {"models/by-hand/config.json"}
        for path in always:
            store.write_bytes(path, b"{}")
        nights, models, snapshots = {}, {}, {}
        for number, state in enumerate(states):
            trained, seen = number // every * every, max(0, number - data.draw(st.integers(0, 3)))
            models[trained] = of_model(store, trained, trained)
            for each in (seen, trained):
                snapshots[each] = of_snapshot(store, each)
            if state != "none":
                aside = state == "withdrawn"
                where = withdrawn(store) if aside else store
                paths = of_night(where, day(number), trained, seen, lists=state != "failed")
                if aside:
                    paths = {f"withdrawn/{path}" for path in paths}
                nights[number] = (state, paths, trained, seen)
        published = [number for number, found in nights.items() if found[0] == "published"]
        if published:
            store.write_json(LATEST, {"run_date": day(published[-1]).isoformat()})
            always.add(LATEST)
        before = set(store.files(""))
        said = retain(store, keep)
        oldest = published[-keep] if len(published) > keep else -1

        left = set(always)
        kept = {number: found for number, found in nights.items() if number >= oldest}
        kept_models = {found[2] for found in kept.values()} | {m for m in models if m >= oldest}
        kept_snapshots = {found[3] for found in kept.values()} | kept_models
        kept_snapshots |= {s for s in snapshots if s >= oldest}
        left |= {path for found in kept.values() for path in found[1]}
        left |= {path for number in kept_models for path in models[number]}
        left |= {path for number in kept_snapshots for path in snapshots[number]}
        assert set(store.files("")) == left
        assert (str(said) == "") == (before == left)
        assert str(retain(store, keep)) == ""


def test_the_night_that_readers_are_led_to_stays(tmp_path: object) -> None:
    store = Store.open(str(tmp_path))
    store.mark()
    for number in range(6):
        of_model(store, number, number)
        of_snapshot(store, number)
        of_night(store, day(number), number, number, lists=True)
    store.write_json(LATEST, {"run_date": day(1).isoformat()})
    said = retain(store, 2)
    assert [*said.nights] == [day(0), day(2), day(3)]
    assert store.children("models") == [model(1), model(4), model(5)]
    assert store.exists(folder(snapshot(1)))
    assert str(said).startswith(f"3 nights ({day(0)} to {day(3)}), 3 models")


def test_nothing_is_deleted_from_a_folder_that_is_no_store(tmp_path: Path) -> None:
    other = Store.open(str(tmp_path))
    for number in range(6):
        of_night(other, day(number), number, number, lists=True)
    before = other.files("")
    with pytest.raises(StoreError, match="is no store"):
        retain(other, 2)
    with pytest.raises(StoreError, match="is no store"):
        forget(other, Customers(pa.array(["u"])))
    assert other.files("") == before
