"""A step against a loop over users and purchases that is written from the equations, by autograd.

Both in float64; a step of SGD at rate 1 moves every parameter by its gradient.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rum_core import settings as s
from rum_core.models import network
from rum_core.models.rum import Rum
from rum_core.training import batches
from rum_core.training import step as step_module
from rum_core.training.batches import Batch, epoch_batches, make_batch, pieces, stream
from rum_core.training.optimizers import Optimizers
from rum_core.training.sampling import Bought
from rum_core.training.step import Worker, step
from tests.oracle import histories_of

ITEMS, D, K = 12, 3, 2
rng = np.random.default_rng(5)
BOUGHT = [rng.integers(0, ITEMS - 2, n).tolist() for n in (1, 11, 4, 4, 1, 7, 2)]
BOUGHT[3] = [6, 6, 6, 6]  # nothing but repeats
HISTORIES = histories_of(BOUGHT)
TABLE = Bought.of(HISTORIES, ITEMS)


def settings_of(level: str, loss: str, *, exclude_seen: bool = False, **train: Any) -> s.Settings:
    values = {"negatives": 4, "optimizer": "sgd", "learning_rate": 1.0, "dropout": 0.0, **train}
    return s.Settings(
        model=s.Model(level=level, dim=D, slots=K, alpha=0.7, beta=1.3, init_std=0.7),
        train=s.Train(loss=loss, **values),
        recommend=s.Recommend(exclude_seen=exclude_seen),
    )


def model_of(chosen: s.Settings) -> Rum:
    model = Rum(chosen.model, ITEMS, len(HISTORIES), seed=1).double()
    model.item_bias.data = torch.linspace(-1, 1, ITEMS, dtype=torch.float64)
    return model


def batch_of(chosen: s.Settings, users: np.ndarray, rank: int = 0, world: int = 1) -> Batch:
    return make_batch(HISTORIES, TABLE, users, chosen, stream(3), rank, world)


def losses(positive: Tensor, negative: Tensor) -> dict[str, Tensor]:
    """Of one purchase against the negatives that count, by their definitions."""
    return {
        "bce": -torch.sigmoid(positive).log() - (1 - torch.sigmoid(negative)).log().sum(),
        "bpr": -torch.sigmoid(positive - negative).log().sum(),
        "softmax": -(positive.exp() / (positive.exp() + negative.exp().sum())).log(),
    }


def plain_loss(chosen: s.Settings, batch: Batch, model: Rum) -> Tensor:
    """Sum over users and purchases, one at a time, eq 1-14; M is cut off every `bptt` WRITEs."""
    alpha, beta = chosen.model.alpha, chosen.model.beta
    keep = 1.0 if batch.keep is None else torch.from_numpy(batch.keep)
    q, b = model.item[batch.rows] * keep, model.item_bias[batch.rows]
    total = torch.zeros((), dtype=torch.float64)

    def score(user: int, i: int, slots: Tensor, keys: Tensor) -> Tensor:
        z = torch.softmax(beta * keys @ q[i], dim=0)
        return (model.user[user] + alpha * z @ slots) @ q[i] + b[i]

    for place, user in enumerate(batch.users):
        start, stop = batch.offsets[place], batch.offsets[place + 1]
        M = torch.zeros(K, D, dtype=torch.float64)
        for t, at in enumerate(range(start, stop)):
            before = batch.tokens[max(start, at - K) : at]
            if chosen.model.level == "item":
                slots = q[before]
                keys = slots
            else:
                M = M.detach() if t % chosen.train.bptt == 0 else M
                slots, keys = M, model.feature
            own = batch.negatives.ndim == 2
            negatives = (batch.negatives[at] if own else batch.negatives)[
                batch.counts[at if own else place]
            ]
            i = batch.tokens[at]
            again = i in batch.tokens[start:at]
            if not (again and chosen.recommend.exclude_seen):
                negative = [score(user, j, slots, keys) for j in negatives]
                values = losses(score(user, i, slots, keys), torch.stack(negative))
                total = total + values[chosen.train.loss]
            if chosen.model.level == "feature":
                z = torch.softmax(beta * keys @ q[i], dim=0)[:, None]
                M = M * (1 - z * torch.sigmoid(model.erase(q[i]))) + z * torch.tanh(model.add(q[i]))
    l2 = [model.item[batch.rows], b, model.user[batch.users], *model.small().values()]
    return total + chosen.train.l2 * sum((p**2).sum() for p in l2)


@pytest.fixture(params=["whole", "cut"])
def cuts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch as one piece, or in many groups of users and stretches of time."""
    if request.param == "cut":
        monkeypatch.setattr(network, "STRETCH", 3)
        monkeypatch.setattr(step_module, "CELLS", 60)


@pytest.mark.usefixtures("cuts")
@pytest.mark.parametrize("level", ["item", "feature"])
@pytest.mark.parametrize("loss", ["bce", "bpr", "softmax"])
@pytest.mark.parametrize(
    "more", [{}, {"dropout": 0.4, "l2": 0.05, "bptt": 3}, {"exclude_seen": True}]
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])  # the latter by kernels
def test_a_step_moves_by_the_gradient_of_the_plain_loop(
    level: str, loss: str, more: dict[str, float], dtype: torch.dtype
) -> None:
    chosen = settings_of(level, loss, **more)
    users = np.array([5, 1, 3, 0, 6, 2])  # not user 4
    batch, plain, model = batch_of(chosen, users), model_of(chosen), model_of(chosen).to(dtype)
    value = plain_loss(chosen, batch, plain)
    value.backward()
    optimizers = Optimizers(model, chosen.train)
    said = step(chosen, batch, Worker(), model, optimizers)
    if not chosen.train.l2:  # what a step says is the loss without it
        assert said.item() == pytest.approx(value.item(), rel=1e-5)
    for (name, moved), before in zip(model.named_parameters(), plain.parameters(), strict=True):
        close = {} if dtype == torch.float64 else {"rtol": 1e-3, "atol": 2e-5}
        moves, wanted = before - moved.double(), before.grad
        torch.testing.assert_close(moves, wanted, msg=lambda m, n=name: f"{n}: {m}", **close)


def test_the_cut_really_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several groups and several stretches, and every purchase is a target once."""
    monkeypatch.setattr(network, "STRETCH", 3)
    monkeypatch.setattr(step_module, "CELLS", 60)
    for loss in ("bce", "softmax"):
        chosen = settings_of("item", loss)
        batch = batch_of(chosen, np.arange(7))
        stretch, context, cells = step_module._measures(chosen, model_of(chosen), batch)
        groups = list(pieces(batch, stretch, context, cells))
        assert len(groups) > 2
        assert max(len(group) for group in groups) == 4
        assert sum(p.targets.sum() for g in groups for p in g) == len(batch.tokens) == 30


@pytest.mark.parametrize("slack", [0, 64])
def test_little_of_a_step_is_padding(monkeypatch: pytest.MonkeyPatch, slack: int) -> None:
    """Histories of very different lengths: at most a tenth, and the slack of each group."""
    monkeypatch.setattr(batches, "SLACK", slack)
    lengths = np.random.default_rng(0).geometric(0.05, 64)
    histories = histories_of([[0] * n for n in lengths])
    chosen = settings_of("item", "softmax")
    batch = make_batch(histories, Bought.of(histories, ITEMS), np.arange(64), chosen, stream(3))
    groups = list(pieces(batch, stretch=1000, context=0, cells=10**6))
    sizes = [(p.real.size, p.real.sum()) for group in groups for p in group]
    assert all(padded <= 1.1 * real + slack for padded, real in sizes)
    assert sum(real for _, real in sizes) == lengths.sum()
    assert len(groups) > 1
    if slack:
        assert len(groups) < 16  # and not one customer at a time


def test_truncation_changes_the_gradient_of_a_long_history_alone() -> None:
    """The test above would pass for any `bptt` if it changed nothing."""
    grads = []
    for bptt in (3, 100):
        chosen = settings_of("feature", "bce", bptt=bptt)
        model = model_of(chosen)
        step(
            chosen,
            batch_of(chosen, np.array([1])),
            Worker(),
            model,
            Optimizers(model, chosen.train),
        )
        grads.append(model.add.weight.detach().clone())
    assert not torch.allclose(*grads, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_step_touches_the_rows_of_its_batch_alone(optimizer: str) -> None:
    chosen = settings_of("item", "bce", optimizer=optimizer, negatives=1)
    batch, model = batch_of(chosen, np.array([4, 0])), model_of(chosen)
    before = [model.item.detach().clone(), model.user.detach().clone()]
    step(chosen, batch, Worker(), model, Optimizers(model, chosen.train))
    for table, old, rows in ((model.item, before[0], batch.rows), (model.user, before[1], [0, 4])):
        moved = (table != old).any(dim=1).nonzero().flatten().tolist()
        assert moved == sorted(rows)


@pytest.mark.parametrize("loss", ["bce", "softmax"])
@pytest.mark.parametrize("world", [2, 9])
def test_workers_share_out_one_batch(loss: str, world: int) -> None:
    chosen = settings_of("item", loss, dropout=0.5)
    whole = batch_of(chosen, np.arange(7))
    shares = [batch_of(chosen, np.arange(7), rank, world) for rank in range(world)]
    for share in shares:
        assert np.array_equal(share.rows, whole.rows)
        assert np.array_equal(share.keep, whole.keep)
    assert sorted(u for share in shares for u in share.users) == list(range(7))
    assert list(_purchases(shares)) == list(_purchases([whole]))


def _purchases(batches: list[Batch]) -> Iterator[tuple[Any, ...]]:
    """(user, position, item, negatives that count) of all batches, in order."""
    found = []
    for batch in batches:
        for place, user in enumerate(batch.users):
            for t, at in enumerate(range(batch.offsets[place], batch.offsets[place + 1])):
                own = batch.negatives.ndim == 2
                against = batch.negatives[at] if own else batch.negatives
                against = against[batch.counts[at if own else place]]
                items = (batch.rows[batch.tokens[at]], *batch.rows[against])
                found.append((int(user), t, *(int(i) for i in items)))
    yield from sorted(found)


def test_an_epoch_takes_every_user_once_in_another_order_each_time() -> None:
    train = s.Train(batch_users=3)
    orders = []
    for epoch in range(2):
        batches = epoch_batches(10, train, 0, epoch)
        assert [len(batch) for batch in batches] == [3, 3, 3, 1]
        orders.append(np.concatenate(batches).tolist())
        assert sorted(orders[-1]) == list(range(10))
    assert orders[0] != orders[1]
    assert orders[0] == np.concatenate(epoch_batches(10, train, 0, 0)).tolist()
