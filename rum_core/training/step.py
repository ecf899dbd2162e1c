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

from rum_core.models.rum import SCORERS, Rum
from rum_core.settings import Settings
from rum_core.training.batches import Batch, Piece, pieces
from rum_core.training.losses import LOSSES
from rum_core.training.optimizers import Optimizers

CELLS = 2**21  # numbers in the largest array of a piece
STRETCH = 128  # purchases of a long history that the item level scores at a time


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
    settings: Settings, batch: Batch, worker: Worker, model: Rum, optimizers: Optimizers
) -> Tensor:
    """One step of all workers; the sum of the losses of the batch's purchases ()."""
    train, device = settings.train, worker.device
    rows = torch.from_numpy(batch.rows).to(device)
    own = torch.from_numpy(batch.users // worker.world).to(device)
    keep = 1.0 if batch.keep is None else torch.from_numpy(batch.keep).to(device)
    item = model.item.detach()[rows]  # (R, D)
    b = model.item_bias.detach()[rows] if settings.model.item_bias else item.new_zeros(len(rows))
    q = item * keep
    p = model.user.detach()[own]  # (B, D)
    small = list(model.small().values())
    for leaf in (q, b, p, *small):
        leaf.requires_grad_()
        leaf.grad = torch.zeros_like(leaf)

    loss = torch.zeros((), device=device)
    stretch, context, cells = _measures(settings, batch)
    for group in pieces(batch, stretch, context, cells):
        M = None
        for piece in group:
            value, M = _piece_loss(settings, model, q, b, p[piece.users], piece, M)
            value.backward()  # type: ignore[no-untyped-call]
            M = None if M is None else M.detach()
            loss += value.detach()

    tables = [_grad(q) * keep, _grad(b)]
    others = [_grad(parameter) for parameter in small]
    _sum_over_workers(worker, [*tables, *others, loss])
    if train.l2:  # lambda |theta|^2 of eq 5, of each row that the batch uses, once
        pairs = zip([*tables, *others, _grad(p)], [item, b, *small, p], strict=True)
        for gradient, value in pairs:
            gradient += 2 * train.l2 * value.detach()
    optimizers.step(rows, tables[: 1 + settings.model.item_bias], others, own, _grad(p))
    return loss


def _measures(settings: Settings, batch: Batch) -> tuple[int, int, int]:
    """How pieces are cut: purchases at a stretch, before it, and of a group at a time."""
    model, negatives = settings.model, batch.negatives.shape[-1]
    own = batch.negatives.ndim == 2
    if model.level == "item":
        stretch, context = max(STRETCH, model.slots), model.slots
        width = (1 + negatives) * (stretch + context) if own else negatives
    else:
        stretch, context = settings.train.bptt, 0
        width = max(negatives * (model.dim if own else 1), model.slots * model.dim)
    return stretch, context, max(1, CELLS // width)


def _piece_loss(
    settings: Settings,
    model: Rum,
    q: Tensor,
    b: Tensor,
    p: Tensor,
    piece: Piece,
    M: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """Sum of the losses of a piece's targets, and the memory after it."""
    tokens, real, negatives, counts = (
        torch.from_numpy(a).to(q.device)
        for a in (piece.tokens, piece.real, piece.negatives, piece.counts)
    )
    M = None if M is None else M[: len(tokens)]  # shorter histories have ended
    positive, negative, M = SCORERS[settings.model.level](model, q, p, tokens, real, negatives, M)
    positive = positive + embedding(tokens, b[:, None])[..., 0]
    negative = negative + embedding(negatives, b[:, None])[..., 0]
    values = LOSSES[settings.train.loss](positive, negative, counts)
    return torch.where(real, values, 0.0)[:, piece.context :].sum(), M


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
