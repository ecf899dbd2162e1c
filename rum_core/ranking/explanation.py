"""Why RUM gives a customer an item: what each slot of the memory carries into the item's score.

y = p* . q_i + alpha sum_k z_ik m_k . q_i + b_i (eq 1-4); counted transitions add
v = w log(1 + c s), and l = v / (v + |y|) is their share. In float64, for one customer and the items
of one list; the scores themselves are made by `ranking.py`. N items, S slots (the feature level: K
features), D dimensions.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from scipy.special import softmax

from rum_core.data.histories import Histories
from rum_core.models.merge import MERGES, by_matmul
from rum_core.ranking.bias import boost_of, item_bias
from rum_core.ranking.feature_level import Writes, replay
from rum_core.store.checkpoint import SavedModel


@dataclass(frozen=True)
class Explanation:
    """The parts of the scores of N items."""

    slots: np.ndarray  # (S,) item of each slot, oldest first; none of a latent feature
    attention: np.ndarray  # (N, S) z; a row sums to 1
    own: np.ndarray  # (N,) p* . q_i; it and `carried` of what MERGE makes of p* and m_k
    bias: np.ndarray  # (N,) b_i, and the shop's boost
    carried: np.ndarray | None  # (N, S) alpha z_ik m_k . q_i; None: a network adds no parts
    counted: np.ndarray | None  # (N, S) v by slot; None: the model counts no transitions
    share: np.ndarray  # (N,) l

    @property
    def learned_weights(self) -> np.ndarray:
        """(1 - l) z (N, S)."""
        return np.asarray((1 - self.share)[:, None] * self.attention)

    @property
    def counted_weights(self) -> np.ndarray:
        """A slot's part of l (N, S)."""
        if self.counted is None:
            return np.zeros_like(self.attention)
        v = self.counted.sum(axis=1, keepdims=True)
        return np.asarray(self.share[:, None] * self.counted / np.where(v > 0, v, 1))

    @property
    def weights(self) -> np.ndarray:
        """What a slot weighs (N, S), learned and counted; a row sums to 1."""
        return np.asarray(self.learned_weights + self.counted_weights)


def explain(
    model: SavedModel, row: int, history: np.ndarray, items: np.ndarray, scores: np.ndarray
) -> Explanation:
    """Explanation of a list's items (N,) and scores (N,), from a RUM model and the purchases that
    it knows, oldest first, at least one. `row` of the table of users, -1: p* = 0."""
    config, t = model.config, model.tensors
    q = t["item"][items].astype(np.float64)  # (N, D)
    p = t["user"][row].astype(np.float64) if row >= 0 else np.zeros(q.shape[1])
    if config["level"] == "item":
        slots = history[-int(config["slots"]) :]
        M = met = t["item"][slots].astype(np.float64)  # (S, D)
    else:
        slots = np.zeros(0, np.int32)
        M, met = _feature_memory(model, history), t["feature"].astype(np.float64)
    z = softmax(config["beta"] * q @ met.T, axis=1)
    merge = MERGES[config.get("merge", "add")]
    learned = {name: t[name].astype(np.float64) for name in merge.learned}
    own = q @ merge.own(p, learned, by_matmul)
    bias = item_bias(model)[items].astype(np.float64)
    carried = None
    if config.get("predict", "inner") == "inner":
        carried = config["alpha"] * z * (q @ merge.carried(p, M, learned, by_matmul).T)
    counted = _counted(model, slots, items) if config.get("transitions") else None
    v = np.zeros(len(items)) if counted is None else counted.sum(axis=1)
    scores = scores.astype(np.float64) - boost_of(model)[items]
    size = v + np.abs(scores - v)
    share = v / np.where(size > 0, size, 1)
    return Explanation(slots, z, own, bias, carried, counted, share)


def nearest(model: SavedModel, features: np.ndarray, most: int) -> np.ndarray:
    """The items (F, most) with the largest cosine to each of these latent features (F,)."""
    q, f = model.tensors["item"], model.tensors["feature"][features]
    lengths = np.linalg.norm(q, axis=1)
    cosine = f @ (q / np.where(lengths > 0, lengths, 1)[:, None]).T  # (F, I), times |f|
    ties = np.broadcast_to(model.catalog.tie_rank, cosine.shape)
    return np.asarray(np.lexsort((ties, -cosine), axis=-1)[:, :most])


def without_memory(model: SavedModel) -> SavedModel | None:
    """The same model reading nothing of the memory, nor of what was counted in it; None for a
    model that never reads one."""
    if not (model.config.get("alpha") or model.config.get("transitions")):
        return None
    return replace(model, config={**model.config, "alpha": 0.0, "transitions": False})


def _feature_memory(model: SavedModel, history: np.ndarray) -> np.ndarray:
    """M (K, D) after the purchases."""
    bought, places = np.unique(history, return_inverse=True)
    some = {**model.tensors, "item": model.tensors["item"][bought]}
    writes = Writes.of(some, float(model.config["beta"]))
    whole = np.array([0, len(history)])
    known = Histories(pa.nulls(1), whole, places.astype(np.int32), places)
    return np.asarray(replay(writes, None, known)[0])


def _counted(model: SavedModel, slots: np.ndarray, items: np.ndarray) -> np.ndarray:
    """v (N, S), parted among the slots as the sum s that it is made from."""
    t = {name: model.tensors[f"transitions.{name}"] for name in ("indptr", "indices", "weights")}
    s = np.zeros((len(items), len(slots)))
    weight = 1.0
    for k in range(len(slots) - 1, -1, -1):
        at = slice(t["indptr"][slots[k]], t["indptr"][slots[k] + 1])
        spoken_for = items[:, None] == t["indices"][at]  # (N, neighbours)
        s[:, k] = weight * (spoken_for @ t["weights"][at].astype(np.float64))
        weight *= float(model.config["decay"])
    total = s.sum(axis=1, keepdims=True)
    w, c = model.tensors["mixture"].astype(np.float64)
    return np.asarray(w * np.log1p(c * total) * s / np.where(total > 0, total, 1))
