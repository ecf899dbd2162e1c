"""Measuring blocks of users, and earlier lists against what followed, against plain loops."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rum_core import schema
from rum_core.data.catalog import Catalog
from rum_core.data.histories import Histories
from rum_core.data.snapshots import midnight_after
from rum_core.evaluation.following import following_rows, following_values, places
from rum_core.evaluation.measure import (
    Measure,
    Measured,
    Row,
    contenders,
    held_out_rows,
    new_users,
    training_counts,
)
from rum_core.evaluation.protocols import Window, bought_by, drawn
from rum_core.ranking.ranking import rank
from rum_core.store.checkpoint import SavedModel, save_model
from rum_core.store.layout import Store

USERS, ITEMS, DIM, N = 40, 30, 4, 3


def shop(seed: int) -> tuple[Catalog, pa.Table]:
    """A snapshot of users with 1 to 25 purchases: its catalogue and rows of schema.histories."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, ITEMS, rng.integers(1, 26)).astype(np.int32) for _ in range(USERS)]
    ids = pa.array([f"item {n}" for n in range(ITEMS)])
    catalog = Catalog.from_ids(ids, np.bincount(np.concatenate(rows), minlength=ITEMS))
    columns = {
        "user_id": pa.array([f"user {n}" for n in range(USERS)]),
        "user_index": pa.array(range(USERS), pa.int64()),
        "items": pa.array(rows, pa.list_(pa.int32())),
        "times": pa.array([range(len(row)) for row in rows], pa.list_(pa.int64())),
    }
    return catalog, pa.table(columns, schema=schema.histories(pa.string()))


def trained(catalog: Catalog, table: pa.Table, seed: int = 0) -> SavedModel:
    """An item-level model of random numbers that knows 25 of the items and users of >= 5."""
    rng = np.random.default_rng(seed)
    few = Catalog.from_ids(catalog.ids.slice(0, 25), catalog.purchases[:25])
    users = [r["user_id"] for r in table.to_pylist() if len(r["items"]) >= 5]
    tensors = {
        "user": rng.normal(size=(len(users), DIM)).astype(np.float32),
        "item": rng.normal(size=(25, DIM)).astype(np.float32),
    }
    config = {"model": "rum", "level": "item", "dim": DIM, "slots": 4, "alpha": 0.7, "beta": 1.0}
    config |= {"item_bias": False, "part": "train", "train_fraction": 0.7, "min_purchases": 5}
    config |= {"snapshot": "2011-07-02-0123456789", "run_date": "2011-07-02"}
    return SavedModel("m1", config, tensors, few, pa.array(users), {})


def measured(store: Store, model: SavedModel, catalog: Catalog, blocks: list[pa.Table]) -> Measured:
    table = model.catalog.index_of(catalog.ids)
    histories = Histories.from_table(pa.concat_tables(blocks))
    counts = training_counts(model, histories, table)
    actor = Measure(store, "m1", counts, table, top_n=N, exclude_seen=True)
    return Measured.of(map(actor, blocks), list(contenders(model, counts)), N)


def rows_of(found: Measured, model: SavedModel) -> tuple[list[Row], dict[str, Row]]:
    counts, ties = model.catalog.purchases, model.catalog.tie_rank
    return held_out_rows(found, "paper", counts, ties, resamples=100, seed=0)


def test_any_split_into_blocks_gives_the_same_rows(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    catalog, table = shop(1)
    model = trained(catalog, table)
    save_model(store, model)
    whole = rows_of(measured(store, model, catalog, [table]), model)
    parts = [table.slice(25), table.slice(0, 0), table.slice(7, 18), table.slice(0, 7)]
    assert rows_of(measured(store, model, catalog, parts), model) == whole


def test_a_draw_measures_its_customers_as_they_are_measured_among_all(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    catalog, table = shop(1)
    model = trained(catalog, table)
    save_model(store, model)
    who = [drawn(table["user_id"], share) for share in (0.3, 0.6, 1.0)]
    assert 0 < who[0].sum() < who[1].sum() < who[2].sum() == USERS
    assert not (who[0] & ~who[1]).any()
    index = model.catalog.index_of(catalog.ids)
    counts = training_counts(model, Histories.from_table(table), index)
    everyone = Measure(store, "m1", counts, index, top_n=N, exclude_seen=True)
    for share, mine in zip((0.3, 0.6), who, strict=False):
        some = Measure(store, "m1", counts, index, top_n=N, exclude_seen=True, share=share)
        expected = everyone(table.filter(pa.array(mine)))
        assert 0 < len(expected) < len(everyone(table))
        assert some(table).equals(expected)


def test_figures_agree_with_a_loop_over_users(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    catalog, table = shop(2)
    model = trained(catalog, table)
    save_model(store, model)
    rows, lead = rows_of(measured(store, model, catalog, [table]), model)
    known = {i: n for n, i in enumerate(model.catalog.index_of(catalog.ids).tolist()) if i >= 0}
    to_model = {old: new for new, old in known.items()}
    histories = Histories.from_table(table)
    counts = np.zeros(len(model.catalog), dtype=np.int64)
    cuts = {}
    for user, items in enumerate(table["items"].to_pylist()):
        cut = min(int(np.floor(np.round(0.7 * len(items), 9))) + 1, len(items))
        if len(items) >= 5:
            for item in items[:cut]:
                if item in to_model:
                    counts[to_model[item]] += 1
        cuts[user] = cut if len(items) >= 5 else min(cut, len(items) - 1)
    hits: dict[tuple[str, str], list[float]] = {}
    models = {
        "rum": model,
        "rum alpha=0": replace(model, config={**model.config, "alpha": 0.0}),
        "popular": SavedModel(
            "popular",
            {"model": "popular"},
            {},
            replace(model.catalog, purchases=counts),
            model.users.slice(0, 0),
            {},
        ),
    }
    models = {
        n: replace(m, catalog=replace(m.catalog, purchases=counts)) for n, m in models.items()
    }
    for user, items in enumerate(table["items"].to_pylist()):
        train, after = items[: cuts[user]], items[cuts[user] :]
        targets = {i for i in after if i not in train}
        if not train or not targets:
            continue
        segment = "all" if len(items) >= 5 else "new users"
        replayed = np.array([to_model.get(i, -1) for i in train], dtype=np.int32)
        one = Histories(
            histories.user_ids.slice(user, 1),
            np.array([0, len(train)]),
            replayed,
            np.zeros(len(train), dtype=np.int64),
        )
        for name, contender in models.items():
            items_ = [i for i in rank(contender, one, top_n=N).items[0].tolist() if i >= 0]
            count = sum(known[i] in targets for i in items_)
            hits.setdefault((segment, name), []).append(count / len(targets))
    recall = {(r["segment"], r["model"]): r for r in rows if r["metric"] == "recall"}
    assert {key for key in recall if key[0] in ("all", "new users")} == set(hits)
    for key, values in hits.items():
        assert recall[key]["users"] == len(values)
        assert recall[key]["value"] == pytest.approx(np.mean(values))
        assert recall[key]["hits"] == np.count_nonzero(values)
    expected = np.mean(hits["all", "rum"]) - np.mean(hits["all", "popular"])
    assert lead["recall"]["value"] == pytest.approx(expected)


def test_popularity_never_sees_a_test_part_or_an_untrained_user(tmp_path: Path) -> None:
    catalog, table = shop(3)
    model = trained(catalog, table)
    index = model.catalog.index_of(catalog.ids)
    histories = Histories.from_table(table)
    counts = training_counts(model, histories, index)
    rng = np.random.default_rng(9)
    scrambled = histories.items.copy()
    new = new_users(model, histories)
    for user in range(USERS):
        length = int(histories.lengths[user])
        cut = 0 if new[user] else min(int(np.floor(np.round(0.7 * length, 9))) + 1, length)
        start = histories.offsets[user]
        scrambled[start + cut : start + length] = rng.integers(0, ITEMS, length - cut)
    assert (scrambled != histories.items).any()
    changed = replace(histories, items=scrambled)
    assert training_counts(model, changed, index).tolist() == counts.tolist()
    assert contenders(model, counts)["rum"].catalog.purchases.tolist() == counts.tolist()


def test_no_user_with_a_target_gives_no_row(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    catalog, table = shop(1)
    model = trained(catalog, table)
    save_model(store, model)
    assert rows_of(measured(store, model, catalog, [table.slice(0, 0)]), model) == ([], {})


def test_earlier_lists_by_hand() -> None:
    listed, until = date(2011, 7, 1), date(2011, 7, 3)
    before, inside, late = (
        midnight_after(listed) - 5,
        midnight_after(listed) + 5,
        midnight_after(until) + 5,
    )
    catalog = Catalog.from_ids(pa.array(["a", "b", "c", "d", "e"]), np.zeros(5, dtype=np.int64))
    index = {name: int(catalog.index_of([name])[0]) for name in "abcde"}
    bought = {
        "u1": [("a", before), ("b", inside), ("a", inside)],  # b is a target, a was bought before
        "u2": [("b", before), ("d", inside), ("b", late)],
        "u3": [("c", before), ("c", inside)],  # only what he had: does not count
        "u4": [("a", before), ("c", late)],  # nothing within the days
        "u5": [("c", inside)],  # had no list
    }
    rows = list(bought.values())
    histories = Histories(
        pa.array(list(bought)),
        np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.int64),
        np.array([index[i] for r in rows for i, _ in r], dtype=np.int32),
        np.array([t for r in rows for _, t in r], dtype=np.int64),
    )
    lists = pa.table(
        {
            "user_id": ["u4", "u1", "u1", "u2", "u2", "u3", "u3", "u4", "gone", "gone"],
            "rank": pa.array([2, 2, 1, 1, 2, 1, 2, 1, 1, 2], pa.int32()),
            "item_id": ["b", "b", "e", "a", "c", "a", "b", "c", "a", "b"],
        }
    )

    def measured(lists: pa.Table, *, listed: date, top_n: int) -> list[Row]:
        window = Window(midnight_after(listed), midnight_after(until))
        asked = {"window": window, "top_n": top_n, "exclude_seen": True}
        counts = bought_by(histories, [window.since], len(catalog))[0]
        known = replace(catalog, purchases=counts)
        _, values = following_values(histories, known, lists, **asked)
        k = places(lists, top_n)
        return following_rows(values, listed=listed, k=k, resamples=100, seed=0)

    found = measured(lists, listed=listed, top_n=5)
    by = {(r["model"], r["metric"]): r for r in found}
    assert by["published", "hit_rate"]["users"] == 2
    assert by["published", "hit_rate"]["hits"] == 1  # u1: b at rank 2; u2: neither a nor c is d
    assert by["published", "precision"]["value"] == pytest.approx(0.25)
    assert by["published", "recall"]["value"] == pytest.approx(0.5)
    dcg = 1 / np.log2(3)
    assert by["published", "ndcg"]["value"] == pytest.approx(dcg / (1 + dcg) / 2)
    # bought by then: a 2, b 1, c 1. u1 gets b and c in the order of ties, so a hit
    assert by["popular", "hit_rate"]["hits"] == 1
    assert {(r["protocol"], r["segment"], r["k"]) for r in found} == {
        ("following", "list 2011-07-01", 2)
    }
    assert measured(lists, listed=until, top_n=5) == []
    longer = {"user_id": ["u1"], "rank": pa.array([3], pa.int32()), "item_id": ["d"]}
    again = measured(pa.concat_tables([lists, pa.table(longer)]), listed=listed, top_n=2)
    assert again == found  # the longer list of one customer changes nothing for the others
