"""RUM written slowly from the equations, in float64 numpy, one user and one item at a time.

Every fast path is tested against it. Symbols and equation numbers are the paper's; tensors and
config are those of a SavedModel. Only filled slots take part in the item-level softmax.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from rum_core.data.catalog import Catalog
from rum_core.data.histories import Histories

Tensors = dict[str, np.ndarray]


def softmax(w: Sequence[float]) -> np.ndarray:
    """exp(w_k) / sum_k exp(w_k)."""
    exps = [np.exp(w_k - max(w)) for w_k in w]
    return np.array([e / sum(exps) for e in exps])


def read_item(q_i: np.ndarray, slots: Sequence[np.ndarray], beta: float) -> np.ndarray:
    """Attention z over the filled slots, eq 6 and 7 (S,)."""
    return softmax([beta * float(q_i @ m_k) for m_k in slots]) if len(slots) else np.zeros(0)


def read_feature(q_i: np.ndarray, F: np.ndarray, beta: float) -> np.ndarray:
    """Attention z over the K latent features, eq 9 (K,)."""
    return softmax([beta * float(q_i @ f_k) for f_k in F])


def write_feature(M: np.ndarray, q_i: np.ndarray, tensors: Tensors, beta: float) -> np.ndarray:
    """The feature-level memory (K, D) after the purchase of item i, eq 11-14."""
    t = {name: np.asarray(value, dtype=np.float64) for name, value in tensors.items()}
    e = 1.0 / (1.0 + np.exp(-(t["erase.weight"] @ q_i + t["erase.bias"])))
    a = np.tanh(t["add.weight"] @ q_i + t["add.bias"])
    z = read_feature(q_i, t["feature"], beta)
    return np.array([m_k * (1.0 - z_k * e) + z_k * a for m_k, z_k in zip(M, z, strict=True)])


def replay(tensors: Tensors, config: dict[str, Any], history: Sequence[int]) -> np.ndarray:
    """Memory after a history: item level the filled slots (S, D), feature level (K, D)."""
    q = np.asarray(tensors["item"], dtype=np.float64)
    if config["level"] == "item":
        slots: list[np.ndarray] = []
        for i in history:
            slots = [*slots, q[i]][-config["slots"] :]  # the oldest leaves
        return np.array(slots).reshape(-1, q.shape[1])
    M = np.zeros((config["slots"], q.shape[1]))
    for i in history:
        M = write_feature(M, q[i], tensors, config["beta"])
    return M


def attention(
    tensors: Tensors, config: dict[str, Any], item: int, history: Sequence[int]
) -> np.ndarray:
    """z of an item over the filled slots (S,), oldest purchase first, or over the features (K,)."""
    q_i = np.asarray(tensors["item"], dtype=np.float64)[item]
    if config["level"] == "item":
        return read_item(q_i, list(replay(tensors, config, history)), config["beta"])
    return read_feature(q_i, np.asarray(tensors["feature"], dtype=np.float64), config["beta"])


def counted(
    tensors: Tensors, config: dict[str, Any], item: int, history: Sequence[int]
) -> np.ndarray:
    """What each slot (S,), oldest first, says for an item by counted transitions."""
    t = {name: tensors[f"transitions.{name}"] for name in ("indptr", "indices", "weights")}
    slots = list(history)[-config["slots"] :]
    parts = np.zeros(len(slots))
    for s, j in enumerate(slots):
        for at in range(t["indptr"][j], t["indptr"][j + 1]):
            if t["indices"][at] == item:
                parts[s] = config["decay"] ** (len(slots) - 1 - s) * float(t["weights"][at])
    return parts


def spoken_for(
    tensors: Tensors, config: dict[str, Any], item: int, history: Sequence[int]
) -> float:
    """What counted transitions add to a score: w log(1 + c s)."""
    w, c = (float(value) for value in tensors["mixture"])
    return float(w * np.log(1 + c * counted(tensors, config, item, history).sum()))


def merge(tensors: Tensors, kind: str, p_star: np.ndarray, r: np.ndarray) -> np.ndarray:
    """MERGE, eq 3, of p* and what was read (D,)."""
    if kind == "concat":
        return np.asarray(tensors["merge"], np.float64) @ np.concatenate([p_star, r])
    if kind == "product":
        return np.array([(1 + a) * (1 + b) - 1 for a, b in zip(p_star, r, strict=True)])
    return p_star + r


def predict(tensors: Tensors, kind: str, p_u: np.ndarray, q_i: np.ndarray) -> float:
    """PREDICT, eq 4, before its sigmoid and the item's bias."""
    if kind == "network":
        t = {name: np.asarray(value, np.float64) for name, value in tensors.items()}
        units = t["hidden"] @ np.concatenate([p_u, q_i]) + t["hidden_bias"]
        weighted = [w * a * b for w, a, b in zip(t["product"], p_u, q_i, strict=True)]
        return float(sum(weighted) + t["out"] @ np.maximum(units, 0.0))
    return float(p_u @ q_i)


def score_user(
    tensors: Tensors, config: dict[str, Any], user_row: int | None, history: Sequence[int]
) -> np.ndarray:
    """Scores of all items (I,) float64 after a history, eq 1-4; user_row None: p* = 0."""
    q = np.asarray(tensors["item"], dtype=np.float64)
    p_star = np.zeros(q.shape[1])
    if user_row is not None:
        p_star = np.asarray(tensors["user"], dtype=np.float64)[user_row]
    M = replay(tensors, config, history)
    scores = np.zeros(len(q))
    for i in range(len(q)):
        if config["level"] == "item":
            z = read_item(q[i], list(M), config["beta"])
        else:
            z = read_feature(q[i], np.asarray(tensors["feature"], np.float64), config["beta"])
        r = np.zeros(q.shape[1])
        for z_k, m_k in zip(z, M, strict=True):
            r = r + config["alpha"] * z_k * m_k
        p_u = merge(tensors, config.get("merge", "add"), p_star, r)
        scores[i] = predict(tensors, config.get("predict", "inner"), p_u, q[i])
        if config.get("item_bias"):
            scores[i] += float(tensors["item_bias"][i])
        if config.get("transitions"):
            scores[i] += spoken_for(tensors, config, i, history)
    return scores


def reasons(
    tensors: Tensors, config: dict[str, Any], item: int, history: Sequence[int], score: float
) -> np.ndarray:
    """The part of each slot (S,) in an item: attention z, mixed with what was counted."""
    z = attention(tensors, config, item, history)
    if config.get("transitions"):
        parts = counted(tensors, config, item, history)
        v = spoken_for(tensors, config, item, history)
        if v > 0:
            share = v / (v + abs(score - v))
            return np.asarray((1 - share) * z + share * parts / parts.sum())
    return z


def top_n(
    scores: np.ndarray, tie_hash: np.ndarray, n: int, excluded: Collection[int] = ()
) -> list[int]:
    """The n best items: scores as float32, largest first, equal ones by their hash."""
    rounded = scores.astype(np.float32)
    left_out = set(excluded)
    free = [i for i in range(len(rounded)) if i not in left_out]
    return sorted(free, key=lambda i: (-float(rounded[i]), int(tie_hash[i])))[:n]


def histories_of(lists: Sequence[Sequence[int]]) -> Histories:
    """Histories of users 0, 1, ... who bought these items at times 0, 1, ..."""
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in lists])]).astype(np.int64)
    items = np.array([i for one in lists for i in one], dtype=np.int32)
    times = np.array([t for one in lists for t in range(len(one))], dtype=np.int64)
    return Histories(pa.array(range(len(lists)), type=pa.int64()), offsets, items, times)


def catalog_of(items: int) -> Catalog:
    """A catalogue of integer ids, each bought once."""
    return Catalog.from_ids(pa.array(range(items), type=pa.int64()), np.ones(items, dtype=np.int64))
