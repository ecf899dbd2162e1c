"""Nights whose log is split at one moment: the figures by hand, and what the models know."""

import random
from datetime import UTC, date, datetime
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from jobs import evaluate, train
from rum_core import settings as s
from rum_core.data.catalog import tie_hash
from rum_core.evaluation.nights import evaluations_path
from rum_core.evaluation.protocols import ALL, NEW_USERS
from rum_core.store.checkpoint import SavedModel, load_model
from rum_core.store.layout import read_record
from rum_core.training import pairs
from rum_core.training.pairs import TRIED
from tests.jobs.conftest import HEADER, NIGHT, Shop

Line = tuple[str, str, int]
N = 5


def log(later: int) -> list[Line]:
    """900 purchases of 60 customers; the last 270 of them depend on `later`."""
    rng, found = random.Random(3), []
    for time in range(900):
        if time == 630 and later:
            rng = random.Random(later)
        user = rng.randrange(50) if time < 630 else rng.randrange(20, 60)
        item = int(rng.triangular(0, 30, 4)) if time < 630 else int(rng.triangular(0, 40, 9))
        found.append((f"c{user}", f"i{item}", 1_600_000_000 + 3600 * (time // 3)))
    return found


def night(shop: Shop, lines: list[Line], *flags: str) -> tuple[list[dict[str, Any]], SavedModel]:
    """The held-out rows of a night by the popular model, and the evaluated model."""
    shop.write("log.csv", HEADER + "".join(f"{u},{i},{t}\n" for u, i, t in lines))
    everything = ["--store", str(shop.folder / "store"), "--source.path", str(shop.log)]
    everything += ["--run-date", NIGHT, *shop.flags, "--history.split", "time", *flags]
    assert shop.night("--history.split", "time", *flags) == 0
    settings = s.load(everything)
    train.train(settings, shop.store)
    evaluate.evaluate(settings, shop.store)
    record = read_record(shop.store, date.fromisoformat(NIGHT), "train")
    assert record is not None
    rows = shop.store.read_table(evaluations_path(settings.night)).to_pylist()
    return rows, load_model(shop.store, record["evaluated_model_id"])


def by_hand(lines: list[Line]) -> dict[str, tuple[int, int]]:
    """MostPopular's hits and customers in two segments, slowly."""
    until = sorted(time for _, _, time in lines)[630]
    before: dict[str, list[str]] = {}
    after: dict[str, set[str]] = {}
    counts: dict[str, int] = {}
    for user, item, time in lines:
        if time < until:
            before.setdefault(user, []).append(item)
            counts[item] = counts.get(item, 0) + 1
        else:
            after.setdefault(user, set()).add(item)
    hashes = dict(zip(counts, tie_hash(list(counts)).tolist(), strict=True))
    order = sorted(counts, key=lambda i: (-counts[i], hashes[i]))
    found = {ALL: [0, 0], NEW_USERS: [0, 0]}
    for user, bought in before.items():
        targets = after.get(user, set()) - set(bought)
        if targets:
            list_ = [i for i in order if i not in bought][:N]
            segment = found[ALL if len(bought) >= 5 else NEW_USERS]
            segment[0] += bool(targets & set(list_))
            segment[1] += 1
    return {name: (hits, users) for name, (hits, users) in found.items()}


@pytest.mark.parametrize("later", [0, 8])
def test_figures_of_the_night_are_those_by_hand(shop: Shop, later: int) -> None:
    lines = log(later)
    rows, model = night(shop, lines, "--model.name", "popular")
    held_out = [r for r in rows if r["segment"] in (ALL, NEW_USERS) and r["metric"] == "hit_rate"]
    assert {r["protocol"] for r in rows} == {"time"}
    found = {r["segment"]: (r["hits"], r["users"]) for r in held_out}
    assert found == by_hand(lines)
    assert all(users for _, users in found.values())
    bought = {item for _, item, time in lines if time < model.config["train_until"] // 1_000_000}
    assert set(model.catalog.ids.to_pylist()) == bought
    record = read_record(shop.store, date.fromisoformat(NIGHT), "evaluate")
    assert record is not None
    assert record["cut"] == f"{datetime.fromtimestamp(lines[630][2], UTC):%Y-%m-%d %H:%M:%S} UTC"


@pytest.mark.parametrize("name", ["seqknn", "rum"])
def test_models_of_logs_that_differ_after_the_cut_are_the_same(
    name: str, tmp_path_factory: pytest.TempPathFactory, without_ray: None
) -> None:
    flags = ["--model.name", name, "--train.epochs", "2", "--train.negatives", "20"]
    models, tables = [], []
    for later in (0, 8):
        shop = Shop(tmp_path_factory.mktemp("shop"))
        with patch.object(pairs, "BEYOND", 0.0):  # any better way to count pairs is taken
            rows, model = night(shop, log(later), *flags)
        models.append(model)
        tables.append([{k: v for k, v in r.items() if k != "model_id"} for r in rows])
    first, second = models
    assert first.users.equals(second.users)
    counted = [{name: m.config[name] for step in TRIED for name in step[0]} for m in models]
    assert counted[0] == counted[1] != {name: getattr(s.Model(), name) for name in counted[0]}
    assert first.catalog.to_table().equals(second.catalog.to_table())
    for tensor in first.tensors:
        np.testing.assert_allclose(first.tensors[tensor], second.tensors[tensor], atol=1e-5)
    assert tables[0] != tables[1]
