"""What training at feature level begins with: counted transitions, as D dimensions can hold them.

W (I, I) holds log(1 + c w_ij), of the weight w_ij that a purchase of i has for j. Q (I, D), the
largest singular vectors of W over its transpose, spans best what items say, as purchases and as
candidates: W ~ Q B Q', B = Q' W Q. With q = Q G and A = G^-1 B' G^-1 a purchase of i that is
written (eq 10; its tanh is nearly straight here) speaks for j as W_ij: q_j . A q_i = Q_j B' Q_i'.
G, the roots of the singular values, shares W out between the two.
"""

import numpy as np
import torch
from scipy import sparse

from rum_core.data.catalog import Catalog
from rum_core.data.histories import Histories
from rum_core.models import transitions
from rum_core.models.network import Network
from rum_core.settings import Settings
from rum_core.training.mixture import RATE
from rum_core.training.step import Worker

SIZE = 0.5  # of what is counted beside the scores that are learned: they add to it
ROUNDS = 4  # of the search for singular vectors
LEAST = 1e-12  # squares of singular values, beside the largest, that are taken for 0


def begin_counted(
    model: Network, part: Histories, catalog: Catalog, settings: Settings, worker: Worker
) -> None:
    """Set the first q and A of a feature-level model by the transitions of these purchases.

    The first worker counts, so that all have the same bits; every worker must call it.
    """
    parameters = dict(model.named_parameters())
    item, add = parameters["item"], parameters["add.weight"]
    values = [torch.zeros_like(item), torch.zeros_like(add)]
    if worker.rank == 0:
        counted = transitions.weights_of(part, catalog, settings.model)
        rows = (np.log1p(RATE * counted["weights"]), counted["indices"], counted["indptr"])
        size = len(catalog)
        found = factors(sparse.csr_array(rows, shape=(size, size)), settings.model.dim)
        values = [torch.from_numpy(v).to(item) for v in found]
    for value in values:
        worker.all_reduce(value)
    with torch.no_grad():
        known = values[0].any(dim=1)  # others keep their random values
        item[known] = SIZE**0.5 * values[0][known]
        add.copy_(values[1])


def factors(W: sparse.csr_array, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """q (I, dim) and A (dim, dim), float64, of W (I, I): q_j . A q_i is near W_ij. By subspace
    iteration (Halko, Martinsson, Tropp 2011).

    Dimensions that W does not need are 0 in q, and those of the identity in A.
    """

    def both(X: np.ndarray) -> np.ndarray:
        return np.asarray(W.T @ (W @ X) + W @ (W.T @ X))

    items = W.shape[0]
    Q = np.random.default_rng(0).normal(size=(items, min(dim, items)))
    for _ in range(ROUNDS):
        Q, _ = np.linalg.qr(both(Q))
    squares, turned = np.linalg.eigh(Q.T @ both(Q))
    there = squares > LEAST * squares.max()
    Q, G = Q @ turned[:, there], (squares[there] / 2) ** 0.25
    kept = len(G)
    q, A = np.zeros((items, dim)), np.eye(dim)
    q[:, :kept] = Q * G
    A[:kept, :kept] = (Q.T @ (W.T @ Q)) / np.outer(G, G)
    return q, A
