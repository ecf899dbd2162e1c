"""The lists of `ranking.py`, slowly: each user's whole catalogue in float64, from the equations.

What the kernels are tested against; for reading, not for a night.
"""

from collections.abc import Callable

import numpy as np

from rum_core.data.histories import Histories
from rum_core.models.merge import MERGES
from rum_core.models.popularity import MostPopular
from rum_core.models.predict import PREDICTS
from rum_core.models.registry import MODELS, OF_NEIGHBOURS
from rum_core.ranking.dense import EPSILON
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


def rum_scores(model: SavedModel, p: np.ndarray, history: np.ndarray) -> np.ndarray:
    """PREDICT of MERGE, eq 1-4; without other names in its config p_u . q_i."""
    q = model.tensors["item"].astype(np.float64)
    memory, met = last_memory(model, history)
    read = model.config["alpha"] * attention(model, met) @ memory  # (I, D)
    t = {name: tensor.astype(np.float64) for name, tensor in model.tensors.items()}
    p_u = MERGES[model.config.get("merge", "add")](p, read, t)
    return np.asarray(PREDICTS[model.config.get("predict", "inner")](p_u, q, t))


def counted(model: SavedModel, history: np.ndarray) -> np.ndarray:
    """What counted transitions add to the score of each item (I,): w log(1 + c s)."""
    w, c = model.tensors["mixture"].astype(np.float64)
    return np.asarray(w * np.log1p(c * counted_parts(model, history).sum(axis=0)))


def counted_parts(model: SavedModel, history: np.ndarray) -> np.ndarray:
    """decay^age c_ki of item-level RUM's transitions (S, I), newest slot first."""
    return _parts(model, history[-model.config["slots"] :], "transitions.")


def mf_scores(model: SavedModel, p: np.ndarray, history: np.ndarray) -> np.ndarray:
    """p_u . q_i."""
    return np.asarray(model.tensors["item"].astype(np.float64) @ p)


def fpmc_scores(model: SavedModel, p: np.ndarray, history: np.ndarray) -> np.ndarray:
    """p_u . q_i + l_j . r_i."""
    q, last, following = (model.tensors[n].astype(np.float64) for n in ("item", "last", "next"))
    return np.asarray(q @ p + following @ last[history[-1]])


def dream_scores(model: SavedModel, p: np.ndarray, history: np.ndarray) -> np.ndarray:
    """h . q_i with h = tanh(W q_t + R h + c)."""
    t = {name: tensor.astype(np.float64) for name, tensor in model.tensors.items()}
    h = np.zeros(t["item"].shape[1])
    for i in history:
        h = np.tanh(t["read.weight"] @ t["item"][i] + t["read.bias"] + t["carry.weight"] @ h)
    return np.asarray(t["item"] @ h)


def sasrec_scores(model: SavedModel, p: np.ndarray, history: np.ndarray) -> np.ndarray:
    """h . q_i with h the output of the last block at the last purchase."""
    t = {name: tensor.astype(np.float64) for name, tensor in model.tensors.items()}
    history = history[-model.config["window"] :]
    D = t["item"].shape[1]

    def norm(x: np.ndarray, at: int) -> np.ndarray:
        centred = x - x.mean(axis=1, keepdims=True)
        size = np.sqrt((centred**2).mean(axis=1, keepdims=True) + EPSILON)
        return np.asarray(centred / size * t["norm_scale"][at] + t["norm_shift"][at])

    x = np.sqrt(D) * t["item"][history] + t["position"][: len(history)]
    for y in range(len(t["query"])):
        n = norm(x, 2 * y)
        w = (n @ t["query"][y].T) @ (n @ t["key"][y].T).T / np.sqrt(D)
        w[np.triu_indices(len(w), 1)] = -np.inf  # nothing attends to what comes later
        z = np.exp(w - w.max(axis=1, keepdims=True))
        x = x + z / z.sum(axis=1, keepdims=True) @ (n @ t["value"][y].T)
        inner = norm(x, 2 * y + 1) @ t["inner"][y].T + t["inner_bias"][y]
        x = x + np.maximum(inner, 0) @ t["outer"][y].T + t["outer_bias"][y]
    return np.asarray(t["item"] @ norm(x, -1)[-1])


def parts(model: SavedModel, history: np.ndarray) -> np.ndarray:
    """What each purchase, newest first, adds to the score of each item (L, I)."""
    return _parts(model, history, "")


def _parts(model: SavedModel, history: np.ndarray, prefix: str) -> np.ndarray:
    t = {name.removeprefix(prefix): tensor for name, tensor in model.tensors.items()}
    items = len(model.catalog)
    rows = np.zeros((len(history), items))
    for age, i in enumerate(history[::-1]):
        at = slice(t["indptr"][i], t["indptr"][i + 1])
        rows[age, t["indices"][at]] = t["weights"][at].astype(np.float64)
    decay = np.cumprod([1.0, *[model.config["decay"]] * (len(history) - 1)])
    return np.asarray(rows * decay[:, None])


def neighbour_scores(model: SavedModel, p: np.ndarray, history: np.ndarray) -> np.ndarray:
    """Sums over the purchases."""
    return np.asarray(parts(model, history).sum(axis=0))


SCORES: dict[str, Callable[[SavedModel, np.ndarray, np.ndarray], np.ndarray]] = {
    "rum": rum_scores,
    "mf": mf_scores,
    "fpmc": fpmc_scores,
    "dream": dream_scores,
    "sasrec": sasrec_scores,
    "itemknn": neighbour_scores,
    "seqknn": neighbour_scores,
    "ease": neighbour_scores,
}


def scores(model: SavedModel, row: int, history: np.ndarray) -> np.ndarray:
    """The score of every item (I,) float32 for the user of `row` (-1: p* = 0)."""
    user = model.tensors.get("user", np.zeros((0, 0)))  # a model may have no table of users
    p = user[row].astype(np.float64) if 0 <= row < len(user) else np.zeros(user.shape[1])
    values = SCORES[model.config["model"]](model, p, history)
    values = values + model.tensors.get("item_bias", 0.0)
    if model.config.get("transitions"):
        values = values + counted(model, history)
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
    name = model.config["model"]
    for user, user_id in enumerate(histories.user_ids.to_pylist()):
        history = histories[user][histories[user] >= 0]
        row = rows.get(user_id, -1)
        cold = len(history) == 0 or (MODELS[name].by_row and row < 0)
        free = np.setdiff1d(able, history) if exclude_seen else able
        ranking.source[user] = POPULAR if cold else name
        ranking.complete[user] = len(free) >= top_n
        if not ranking.complete[user]:
            continue
        popular = cold or name == POPULAR
        values = MostPopular(model.catalog).scores if popular else scores(model, row, history)
        order = sorted(free, key=lambda i: (-values[i], model.catalog.tie_rank[i]))[:top_n]
        ranking.items[user], ranking.scores[user] = order, values[order]
        if not popular and (name in OF_NEIGHBOURS or model.config.get("level") == "item"):
            _explain(model, ranking, user, history, because)
    return ranking


def _explain(
    model: SavedModel, ranking: Ranking, user: int, history: np.ndarray, because: int
) -> None:
    """Attention z of item-level RUM; of neighbours the share of what adds to the score."""
    neighbours = model.config["model"] in OF_NEIGHBOURS
    if neighbours:
        slots = history
        given = parts(model, history)[::-1]  # (L, I)
    else:
        slots = history[-model.config["slots"] :]
        given = attention(model, model.tensors["item"][slots].astype(np.float64)).T
    if model.config.get("transitions"):
        given = _with_counted(model, given, ranking, user, history)
    newest = {j: s for s, j in enumerate(slots)}
    for n, i in enumerate(ranking.items[user]):
        weight = {j: given[slots == j, i].sum() for j in newest}
        if neighbours:
            total = sum(max(0.0, w) for w in weight.values())
            weight = {j: w / total for j, w in weight.items() if w > 0}
        weight = {j: np.float32(w) for j, w in weight.items()}
        first = sorted(weight, key=lambda j: (-weight[j], -newest[j]))[:because]
        ranking.because_items[user, n, : len(first)] = first
        ranking.because_weights[user, n, : len(first)] = [weight[j] for j in first]


def _with_counted(
    model: SavedModel, z: np.ndarray, ranking: Ranking, user: int, history: np.ndarray
) -> np.ndarray:
    """Attention (S, I) of the items of a list: (1 - l) z + l c / sum c, l = v / (v + |y|)."""
    parts, mixed = counted_parts(model, history)[::-1], z.copy()
    values = counted(model, history)
    for n, i in enumerate(ranking.items[user]):
        if values[i] > 0:
            share = values[i] / (values[i] + abs(ranking.scores[user, n] - values[i]))
            mixed[:, i] = (1 - share) * z[:, i] + share * parts[:, i] / parts[:, i].sum()
    return mixed
