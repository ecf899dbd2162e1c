"""MostPopular against counts worked out by hand."""

import numpy as np
import pyarrow as pa

from rum_core.data.catalog import Catalog
from rum_core.data.histories import Histories
from rum_core.models.popularity import MostPopular
from rum_core.ranking.ranking import rank
from rum_core.store.checkpoint import SavedModel

IDS = ["a", "b", "c", "d", "e"]
COUNTS = [3, 7, 3, 0, 3]


def popular_model() -> SavedModel:
    catalog = Catalog.from_ids(pa.array(IDS), np.array(COUNTS))
    config = {"model": "popular"}
    return SavedModel("p", config, {}, catalog, pa.array([], pa.string()), {})


def names(catalog: Catalog, items: np.ndarray) -> list[str]:
    return [catalog.ids[int(i)].as_py() for i in items]


def test_order_is_by_count_then_by_hash() -> None:
    catalog = popular_model().catalog
    popular = MostPopular(catalog)
    hashes = dict(zip(catalog.ids.to_pylist(), catalog.hashes, strict=True))
    tied = sorted(["a", "c", "e"], key=lambda i: hashes[i])
    assert names(catalog, popular.order) == ["b", *tied, "d"]
    assert popular.scores[popular.order[0]] == np.float32(7 / 16)


def test_a_model_of_its_own_leaves_out_what_was_bought() -> None:
    model = popular_model()
    b, d = model.catalog.index_of(["b", "d"])
    bought = np.array([b, b, d, -1], dtype=np.int32)
    users = pa.array(["x", "y", "z"])
    histories = Histories(users, np.array([0, 2, 4, 4]), bought, np.zeros(4, np.int64))
    ranking = rank(model, histories, top_n=3, because=2)
    hashes = dict(zip(model.catalog.ids.to_pylist(), model.catalog.hashes, strict=True))
    tied = sorted(["a", "c", "e"], key=lambda i: hashes[i])
    assert names(model.catalog, ranking.items[0]) == tied
    assert names(model.catalog, ranking.items[1]) == ["b", *tied[:2]]
    assert names(model.catalog, ranking.items[2]) == ["b", *tied[:2]]
    assert (ranking.because_items == -1).all()
    assert set(ranking.source) == {"popular"}
    again = rank(model, histories, top_n=3, exclude_seen=False)
    assert names(model.catalog, again.items[0])[0] == "b"


def test_candidates_bound_the_list() -> None:
    model = popular_model()
    nobody = Histories(pa.array(["x"]), np.array([0, 0]), np.array([], np.int32), np.array([]))
    candidates = np.zeros(5, dtype=bool)
    candidates[model.catalog.index_of(["d", "a"])] = True
    ranking = rank(model, nobody, top_n=2, candidates=candidates)
    assert names(model.catalog, ranking.items[0]) == ["a", "d"]


def test_a_catalogue_without_counts_has_scores() -> None:
    catalog = Catalog.from_ids(pa.array(IDS), np.zeros(5, np.int64))
    assert MostPopular(catalog).scores.tolist() == [0.0] * 5
