"""One training step of all workers: scores, loss, gradients, and the optimizers' move.

The loss of a step is the sum over the purchases of its global batch (eq 5), so a step of SGD is
`learning_rate` a purchase as in the paper, whatever the batch; an adaptive optimizer does not mind
the scale. A user's row belongs to the worker that holds the user; only gradients of what all share
are summed over workers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding

from rum_core.models.network import Network, Rows
from rum_core.models.noise import Noise
from rum_core.settings import Settings
from rum_core.training.batches import Batch, Piece, pieces
from rum_core.training.losses import LOSSES
from rum_core.training.optimizers import Optimizers

CELLS = 2**21  # numbers in the largest array of a piece


@dataclass(frozen=True)
class Worker:
    """This process among `world`; `all_reduce` sums a tensor over all of them, in place."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    all_reduce: Callable[[Tensor], object] = lambda _: None

    def users(self, n: int) -> np.ndarray:
        """Those of n users whose row of the user table lies here, in the order of its rows."""
        return np.arange(self.rank, n, self.world)


def step(
    settings: Settings, batch: Batch, worker: Worker, model: Network, optimizers: Optimizers
) -> Tensor:
    """One step of all workers; the sum of the losses of the batch's purchases ()."""
    train, device = settings.train, worker.device
    rows = torch.from_numpy(batch.rows).to(device)
    own = torch.from_numpy(batch.users // worker.world).to(device)
    keep = 1.0 if batch.keep is None else torch.from_numpy(batch.keep).to(device)
    values = {name: table.detach()[rows] for name, table in model.tables().items()}
    used = {n: value * keep if value.dim() == 2 else value for n, value in values.items()}
    p = None if model.user is None else model.user.detach()[own]  # (B, D)
    small = list(model.small().values())
    for leaf in (*used.values(), *small, *([] if p is None else [p])):
        leaf.requires_grad_()
        leaf.grad = torch.zeros_like(leaf)

    loss = torch.zeros((), device=device)
    noise = Noise(batch.key, train.dropout)
    stretch, context, cells = _measures(settings, model, batch)
    for group in pieces(batch, stretch, context, cells):
        M = None
        for piece in group:
            mine = None if p is None else p[piece.users]
            value, M = _piece_loss(settings, model, used, mine, piece, M, noise)
            value.backward()  # type: ignore[no-untyped-call]
            M = None if M is None else M.detach()
            loss += value.detach()

    tables = [_grad(leaf) * keep if leaf.dim() == 2 else _grad(leaf) for leaf in used.values()]
    others = [_grad(parameter) for parameter in small]
    users = [] if p is None else [_grad(p)]
    _sum_over_workers(worker, [*tables, *others, loss])
    if train.l2:  # lambda |theta|^2 of eq 5, of each row that the batch uses, once
        held = [*values.values(), *small, *([] if p is None else [p])]
        for gradient, value in zip([*tables, *others, *users], held, strict=True):
            gradient += 2 * train.l2 * value.detach()
    optimizers.step(rows, tables, others, own, users)
    return loss


def _measures(settings: Settings, model: Network, batch: Batch) -> tuple[int, int, int]:
    """How pieces are cut: purchases at a stretch, before it, and of a group at a time."""
    stretch, context = model.stretches(settings.train.bptt)
    own, negatives = batch.negatives.ndim == 2, batch.negatives.shape[-1]
    width = model.cells(negatives, own=own, length=stretch + context)
    return stretch, context, max(1, CELLS // width)


def _piece_loss(
    settings: Settings,
    model: Network,
    rows: Rows,
    p: Tensor | None,
    piece: Piece,
    M: Tensor | None,
    noise: Noise,
) -> tuple[Tensor, Tensor | None]:
    """Sum of the losses of a piece's targets, and the memory after it."""
    tokens, real, targets, negatives, counts = (
        torch.from_numpy(a).to(rows["item"].device)
        for a in (piece.tokens, piece.real, piece.targets, piece.negatives, piece.counts)
    )
    M = None if M is None else M[: len(tokens)]  # shorter histories have ended
    positive, negative, M = model.scores(rows, p, tokens, real, negatives, M, noise)
    if "item_bias" in rows:
        b = rows["item_bias"][:, None]
        positive = positive + embedding(tokens, b)[..., 0]
        negative = negative.add_(embedding(negatives, b)[..., 0])
    values = LOSSES[settings.train.loss](positive, negative, counts)
    return torch.where(targets, values, 0.0).sum(), M


def _sum_over_workers(worker: Worker, tensors: list[Tensor]) -> None:
    if worker.world == 1:
        return
    flat = torch.cat([t.flatten() for t in tensors])
    worker.all_reduce(flat)
    start = 0
    for tensor in tensors:
        tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
        start += tensor.numel()


def _grad(leaf: Tensor) -> Tensor:
    assert leaf.grad is not None
    return leaf.grad
