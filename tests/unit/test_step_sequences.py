"""A step of SASRec and DREAM over long histories against a loop written from their equations.

Both in float64; a step of SGD at rate 1 moves every parameter by its gradient.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rum_core import settings as s
from rum_core.models.dream import Dream
from rum_core.models.network import Network
from rum_core.models.registry import made_by
from rum_core.models.sasrec import SasRec
from rum_core.ranking.dense import EPSILON
from rum_core.training import step as step_module
from rum_core.training.batches import Batch, make_batch, stream
from rum_core.training.optimizers import Optimizers
from rum_core.training.sampling import Bought
from rum_core.training.step import Worker, step
from tests.oracle import histories_of
from tests.unit.test_step import losses

ITEMS, D = 12, 3
rng = np.random.default_rng(5)
BOUGHT = [rng.integers(0, ITEMS - 2, n).tolist() for n in (1, 31, 6, 13, 7, 20)]
HISTORIES = histories_of(BOUGHT)
CASES: list[tuple[str, dict[str, Any], bool]] = [
    ("softmax", {}, False),
    ("bce", {"l2": 0.05}, False),
    ("bpr", {}, True),
]


def settings_of(
    name: str, loss: str = "bce", *, window: int = 6, exclude_seen: bool = False, **train: Any
) -> s.Settings:
    plain = {"negatives": 4, "optimizer": "sgd", "learning_rate": 1.0, "dropout": 0.0, "bptt": 3}
    return s.Settings(
        model=s.Model(name=name, dim=D, window=window, layers=2, init_std=0.7),
        train=s.Train(loss=loss, **{**plain, **train}),
        recommend=s.Recommend(exclude_seen=exclude_seen),
    )


def model_of(chosen: s.Settings) -> Network:
    """Every parameter random, those too that begin as zeros and ones."""
    model: Network = made_by(chosen.model.name)(chosen.model, ITEMS, len(HISTORIES), seed=1)
    model.double()
    torch.manual_seed(2)
    for parameter in model.parameters():
        parameter.data = 0.7 * torch.randn_like(parameter)
    return model


def batch_of(chosen: s.Settings) -> Batch:
    users = np.arange(len(HISTORIES))
    return make_batch(HISTORIES, Bought.of(HISTORIES, ITEMS), users, chosen, stream(3))


def dream_states(model: Dream, q: list[Tensor], bptt: int) -> list[Tensor]:
    """h before each purchase; its gradient goes back to the last multiple of `bptt`."""
    h, before = torch.zeros(D, dtype=torch.float64), []
    for t, q_t in enumerate(q):
        h = h.detach() if t % bptt == 0 else h
        before.append(h)
        h = torch.tanh(model.read.weight @ q_t + model.read.bias + model.carry.weight @ h)
    return before


def sasrec_states(model: SasRec, q: list[Tensor], window: int) -> list[Tensor]:
    """h before each purchase. Half a window of purchases is scored together: from the purchases
    that the last of them has in its window, whose first is at position 0."""
    half, before = max(1, window // 2), [torch.zeros(D, dtype=torch.float64)]
    for t in range(1, len(q)):
        last = t - t % half + half - 1
        before.append(sasrec_output(model, q[max(0, last - window) : t]))
    return before


def sasrec_output(model: SasRec, q: list[Tensor]) -> Tensor:
    """The last output of the network over these purchases."""

    def norm(x: Tensor, at: int) -> Tensor:
        centred = x - x.mean()
        size = ((centred**2).mean() + EPSILON).sqrt()
        return centred / size * model.norm_scale[at] + model.norm_shift[at]

    xs = [math.sqrt(D) * q_t + model.position[t] for t, q_t in enumerate(q)]
    for y in range(len(model.query)):
        ns = [norm(x, 2 * y) for x in xs]
        keys = [model.key[y] @ n for n in ns]
        values = [model.value[y] @ n for n in ns]
        for t, n in enumerate(ns):
            w = [(model.query[y] @ n) @ key / math.sqrt(D) for key in keys[: t + 1]]
            z = torch.softmax(torch.stack(w), dim=0)
            x = xs[t] + sum(z_k * value for z_k, value in zip(z, values, strict=False))
            inner = torch.relu(model.inner[y] @ norm(x, 2 * y + 1) + model.inner_bias[y])
            xs[t] = x + model.outer[y] @ inner + model.outer_bias[y]
    return norm(xs[-1], -1)


def plain_loss(chosen: s.Settings, batch: Batch, model: Network) -> Tensor:
    """Sum over users and purchases, one at a time, and lambda |theta|^2."""
    q, b = model.item[batch.rows], model.item_bias[batch.rows]
    total = torch.zeros((), dtype=torch.float64)
    for place in range(len(batch.users)):
        start, stop = batch.offsets[place], batch.offsets[place + 1]
        history = [q[token] for token in batch.tokens[start:stop]]
        if isinstance(model, SasRec):
            before = sasrec_states(model, history, chosen.model.window)
        else:
            before = dream_states(model, history, chosen.train.bptt)
        for h, at in zip(before, range(start, stop), strict=True):
            i, own = batch.tokens[at], batch.negatives.ndim == 2
            if chosen.recommend.exclude_seen and i in batch.tokens[start:at]:
                continue
            drawn = batch.negatives[at] if own else batch.negatives
            negatives = drawn[batch.counts[at if own else place]]
            values = losses(h @ q[i] + b[i], q[negatives] @ h + b[negatives])
            total = total + values[chosen.train.loss]
    l2 = [q, b, *model.small().values()]
    return total + chosen.train.l2 * sum((p**2).sum() for p in l2)


@pytest.mark.parametrize("cells", [60, step_module.CELLS])  # many groups of users, or few
@pytest.mark.parametrize(("name", "window"), [("sasrec", 6), ("sasrec", 5), ("dream", 6)])
@pytest.mark.parametrize(("loss", "more", "exclude_seen"), CASES)
def test_a_step_moves_by_the_gradient_of_the_plain_loop(
    name: str,
    window: int,
    loss: str,
    more: dict[str, float],
    exclude_seen: bool,
    cells: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(step_module, "CELLS", cells)
    chosen = settings_of(name, loss, window=window, exclude_seen=exclude_seen, **more)
    batch, plain, model = batch_of(chosen), model_of(chosen), model_of(chosen)
    value = plain_loss(chosen, batch, plain)
    value.backward()
    said = step(chosen, batch, Worker(), model, Optimizers(model, chosen.train))
    if not chosen.train.l2:  # what a step says is the loss without it
        assert said.item() == pytest.approx(value.item())
    for (of, moved), before in zip(model.named_parameters(), plain.parameters(), strict=True):
        wanted = before.grad
        torch.testing.assert_close(before - moved, wanted, msg=lambda m, of=of: f"{of}: {m}")


@pytest.mark.parametrize("window", [1, 5, 6])
def test_a_history_longer_than_the_window_is_learned_from_whole(window: int) -> None:
    """Cut in stretches, every purchase is a target once: also those that only a later one sees."""
    chosen = settings_of("sasrec", window=window)
    batch = batch_of(chosen)
    stretch, context, cells = step_module._measures(chosen, model_of(chosen), batch)
    aims = np.zeros(len(batch.tokens), int)
    for group in step_module.pieces(batch, stretch, context, cells):
        for number, piece in enumerate(group):
            first = max(0, number * stretch - context)
            user, place = np.nonzero(piece.targets)
            np.add.at(aims, batch.offsets[piece.users.start + user] + first + place, 1)
    assert (aims == 1).all()
