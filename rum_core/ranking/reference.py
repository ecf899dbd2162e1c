"""The lists of `ranking.py`, slowly: each user's whole catalogue in float64, from the equations.

What the kernels are tested against; for reading, not for a night.
"""

import numpy as np

from rum_core.data.histories import Histories
from rum_core.models.popularity import MostPopular
from rum_core.ranking.ranking import POPULAR, Ranking, candidate_items, empty_ranking
from rum_core.store.checkpoint import SavedModel


def attention(model: SavedModel, memory: np.ndarray) -> np.ndarray:
    """z (I, S) of every item over the filled slots `memory` (S, D), eq 6, 7 and 9."""
    w = model.config["beta"] * model.tensors["item"].astype(np.float64) @ memory.T
    z: np.ndarray = np.exp(w - w.max(axis=1, keepdims=True))
    return np.asarray(z / z.sum(axis=1, keepdims=True))


def last_memory(model: SavedModel, history: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """M (S, D) after the purchases `history`, and the vectors (S, D) that the attention meets."""
    t = {name: tensor.astype(np.float64) for name, tensor in model.tensors.items()}
    if model.config["level"] == "item":
        slots = t["item"][history[-model.config["slots"] :]]
        return slots, slots
    z = attention(model, t["feature"])
    memory = np.zeros_like(t["feature"])
    for i in history:
        q = t["item"][i]
        with np.errstate(over="ignore"):
            erase = 1 / (1 + np.exp(-(t["erase.weight"] @ q + t["erase.bias"])))  # eq 11
        add = np.tanh(t["add.weight"] @ q + t["add.bias"])  # eq 13
        memory = memory * (1 - np.outer(z[i], erase)) + np.outer(z[i], add)  # eq 12, 13
    return memory, t["feature"]


def scores(model: SavedModel, row: int, history: np.ndarray) -> np.ndarray:
    """The score of every item (I,) float32 for the user of `row` (-1: p* = 0), eq 1-4."""
    q = model.tensors["item"].astype(np.float64)
    p = np.zeros(q.shape[1]) if row < 0 else model.tensors["user"][row].astype(np.float64)
    memory, met = last_memory(model, history)
    p_u = p + model.config["alpha"] * attention(model, met) @ memory  # (I, D)
    values = (p_u * q).sum(axis=1) + model.tensors.get("item_bias", 0.0)
    return np.asarray(values, dtype=np.float32)


def rank(
    model: SavedModel,
    histories: Histories,
    *,
    top_n: int,
    exclude_seen: bool = True,
    because: int = 0,
    candidates: np.ndarray | None = None,
) -> Ranking:
    """Ranking of the users of `histories`, as `ranking.rank`."""
    able = candidate_items(model, candidates, top_n)
    ranking = empty_ranking(len(histories), top_n, because)
    rows = {user_id: row for row, user_id in enumerate(model.users.to_pylist())}
    for user, user_id in enumerate(histories.user_ids.to_pylist()):
        history = histories[user][histories[user] >= 0]
        rum = len(history) > 0 and model.config["model"] != POPULAR
        free = np.setdiff1d(able, history) if exclude_seen else able
        ranking.source[user] = model.config["model"] if len(history) else POPULAR
        ranking.complete[user] = len(free) >= top_n
        if not ranking.complete[user]:
            continue
        values = (
            scores(model, rows.get(user_id, -1), history)
            if rum
            else MostPopular(model.catalog).scores
        )
        order = sorted(free, key=lambda i: (-values[i], model.catalog.tie_rank[i]))[:top_n]
        ranking.items[user], ranking.scores[user] = order, values[order]
        if rum and model.config["level"] == "item":
            _explain(model, ranking, user, history, because)
    return ranking


def _explain(
    model: SavedModel, ranking: Ranking, user: int, history: np.ndarray, because: int
) -> None:
    slots = history[-model.config["slots"] :]
    z = attention(model, model.tensors["item"][slots].astype(np.float64))
    for n, i in enumerate(ranking.items[user]):
        weight = {j: np.float32(z[i][slots == j].sum()) for j in slots}
        newest = {j: s for s, j in enumerate(slots)}
        first = sorted(weight, key=lambda j: (-weight[j], -newest[j]))[:because]
        ranking.because_items[user, n, : len(first)] = first
        ranking.because_weights[user, n, : len(first)] = [weight[j] for j in first]
