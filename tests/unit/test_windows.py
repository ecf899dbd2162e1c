"""What training computes by kernels on a CPU, in float32, against the same by torch in float64."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rum_core.models import kernels, memory, rum
from rum_core.models.replays import replayed
from rum_core.models.windows import TILE, window_scores
from rum_core.settings import Model
from rum_core.training import losses
from rum_core.training.losses import softmax
from rum_core.training.softmax import sampled_softmax

quick = settings(max_examples=40, deadline=None)


def gradients(work: Callable[..., Tensor], given: Tensor, *leaves: Tensor) -> list[Tensor]:
    """What `work` gives, and the gradients of its inputs, where those of its values are `given`."""
    leaves = tuple(leaf.clone().requires_grad_() for leaf in leaves)
    found = work(*leaves)
    found.backward(given.to(found.dtype))  # type: ignore[no-untyped-call]
    return [found.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def assert_alike(exact: list[Tensor], found: list[Tensor], tolerance: float) -> None:
    assert len(exact) == len(found)
    for wanted, mine in zip(exact, found, strict=True):
        assert mine.dtype == torch.float32
        scale = 1 + wanted.abs().flatten(0, -2).amax(dim=0)  # of each candidate
        assert ((wanted - mine).abs() / scale).max() < tolerance


@quick
@given(
    seed=st.integers(0, 10**6),
    length=st.integers(1, 30),
    slots=st.integers(1, 12),
    candidates=st.sampled_from([1, 5, TILE, TILE + 1, 3 * TILE - 2]),
    beta=st.sampled_from([0.0, 0.4, 1.0, 3.0]),
    size=st.sampled_from([0.1, 1.0, 8.0, 60.0]),
)
def test_scores_of_windows(
    seed: int, length: int, slots: int, candidates: int, beta: float, size: float
) -> None:
    """Also where a window lies so far below its column that its sum vanishes (size 60)."""
    rng = np.random.default_rng(seed)
    shape = (3, length, candidates)
    w, base, given_ = (
        torch.from_numpy(rng.normal(0, s, n).astype(np.float32))
        for s, n in ((size, shape), (1.0, (3, candidates)), (1.0, shape))
    )
    inside = memory.window(length, slots)

    def plain(w: Tensor, base: Tensor) -> Tensor:
        return base[:, None] + 1.3 * memory.read_shared(w, w, inside, beta)

    exact = gradients(plain, given_, w.double(), base.double())
    found = gradients(lambda *x: window_scores(*x, slots, 1.3, beta), given_, w, base)
    assert_alike(exact, found, 2e-5 * (1 + beta * size / 8))


@quick
@given(
    seed=st.integers(0, 10**6),
    negatives=st.integers(1, 70),
    size=st.sampled_from([0.1, 3.0, 100.0]),
    counting=st.sampled_from([0.0, 0.7, 1.0]),
    own=st.booleans(),
)
def test_the_sampled_softmax(
    seed: int, negatives: int, size: float, counting: float, own: bool
) -> None:
    """With negatives that a customer's purchases share and with their own, none of them counting
    too."""
    rng = np.random.default_rng(seed)
    positive, negative, given_ = (
        torch.from_numpy(rng.normal(0, s, n).astype(np.float32))
        for s, n in ((size, (2, 4)), (size, (2, 4, negatives)), (1.0, (2, 4)))
    )
    counts = torch.from_numpy(rng.random((2, 4 if own else 1, negatives)) < counting)
    exact = gradients(lambda *x: softmax(*x, counts), given_, positive.double(), negative.double())
    found = gradients(lambda *x: softmax(*x, counts), given_, positive, negative)
    assert_alike(exact, found, 1e-5 * (1 + size / 10))


@quick
@given(
    seed=st.integers(0, 10**6),
    length=st.integers(1, 12),
    slots=st.integers(1, 6),
    dim=st.integers(1, 40),
    real=st.sampled_from([0.0, 0.7, 1.0]),
)
def test_the_replay_of_writes(seed: int, length: int, slots: int, dim: int, real: float) -> None:
    """Histories of any lengths, from a memory that holds something; what is read after the last
    WRITE counts too."""
    rng = np.random.default_rng(seed)
    M, z, e, a, of_before, of_after = (
        torch.from_numpy(rng.normal(0, 1, n).astype(np.float32))
        for n in (
            *((3, slots, dim), (3, length, slots), (3, length, dim), (3, length, dim)),
            *((3, length, slots, dim), (3, slots, dim)),
        )
    )
    at = torch.from_numpy(np.arange(length) < rng.binomial(length, real, (3, 1)))

    def through(replay: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., Tensor]:
        """Both of what `replay` gives as one array (3, length + 1, slots, dim)."""

        def whole(*given: Tensor) -> Tensor:
            before, after = replay(*given, at)
            return torch.cat([before, after[:, None]], dim=1)

        return whole

    given_ = torch.cat([of_before, of_after[:, None]], dim=1)
    leaves = M, torch.softmax(z, dim=-1), torch.sigmoid(e), torch.tanh(a)
    doubles = [leaf.double() for leaf in leaves]
    exact = gradients(through(memory.replay_feature), given_, *doubles)
    assert_alike(exact, gradients(through(replayed), given_, *leaves), 1e-5)


def test_shapes_that_do_not_fit_are_refused() -> None:
    """A kernel would read beyond them."""
    M, z, a, real = (
        torch.zeros(2, 4, 3),
        torch.zeros(2, 5, 4),
        torch.zeros(2, 5, 3),
        torch.ones(2, 5),
    )
    for amiss in (
        (M[:1], z, a, a, real),
        (M, z[..., :1], a, a, real),
        (M, z, a[:, :1], a, real),
        (M, z, a, a[..., :1], real),
        (M, z, a, a, real[:, :1]),
    ):
        with pytest.raises(ValueError, match="do not fit"):
            replayed(*amiss)
    w, true = torch.zeros(2, 3, 5), torch.ones(4, 5, dtype=torch.bool)
    for base, slots in ((torch.zeros(2, 4), 1), (torch.zeros(1, 5), 1), (torch.zeros(2, 5), 0)):
        with pytest.raises(ValueError, match="do not fit"):
            window_scores(w, base, slots, 1.0, 1.0)
    with pytest.raises(ValueError, match="do not fit"):
        window_scores(torch.zeros(2, 0, 5), torch.zeros(2, 5), 1, 1.0, 1.0)
    for sizes in ((3, (4, 5), 4), (4, (4, 5), 3), (4, (4, 6), 4), (4, (4, 5), 0)):
        with pytest.raises(ValueError, match="do not fit"):
            sampled_softmax(torch.zeros(sizes[0]), torch.zeros(sizes[1]), true[: sizes[2]])


def test_one_score_for_all_purchases_of_a_customer() -> None:
    """Matrix factorisation's: it is not for the kernel, and gives what it gave each of them."""
    rng = np.random.default_rng(0)
    positive, negative = (torch.from_numpy(rng.normal(size=n)) for n in ((2, 4), (2, 1, 5)))
    counts = torch.from_numpy(rng.random((2, 1, 5)) < 0.7)
    exact = softmax(positive, negative.expand(2, 4, 5), counts)
    torch.testing.assert_close(softmax(positive, negative, counts), exact)
    found = softmax(positive.float(), negative.float(), counts)
    torch.testing.assert_close(found, exact.float())


@pytest.mark.parametrize("amiss", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 30, 69])
def test_a_score_that_is_not_finite_is_not_hidden(amiss: float, place: int) -> None:
    """Training is ended by a loss that is not finite."""
    negative = torch.zeros(2, 70)
    negative[1, place] = amiss
    loss = softmax(torch.zeros(2), negative, torch.ones(2, 70, dtype=torch.bool))
    assert torch.isfinite(loss).tolist() == [True, False]
    for positive in (np.nan, np.inf, -np.inf):
        loss = softmax(torch.tensor([positive]), torch.zeros(1, 70), torch.ones(1, 70).bool())
        assert not torch.isfinite(loss).any()


def test_item_level_takes_its_kernel_for_float32_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rum, "window_scores", None)  # as if it were not there
    model = rum.Rum(Model(dim=2, slots=2, transitions=False), 5, 1, seed=0)
    tokens, real = torch.tensor([[0, 1]]), torch.ones(1, 2, dtype=torch.bool)

    def scores(dtype: torch.dtype) -> None:
        q, p = model.item.to(dtype), model.user.to(dtype)
        rum.item_scores(model, q, p, tokens, real, torch.tensor([2, 3]), None)

    scores(torch.float64)
    with pytest.raises(TypeError):
        scores(torch.float32)


def test_feature_level_takes_its_kernel_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rum, "replayed", None)
    model = rum.Rum(Model(level="feature", dim=2, slots=2), 5, 1, seed=0)
    tokens, real = torch.tensor([[0, 1]]), torch.ones(1, 2, dtype=torch.bool)

    def scores() -> None:
        rum.feature_scores(model, model.item, model.user, tokens, real, torch.tensor([2, 3]), None)

    with pytest.raises(TypeError):
        scores()
    model.double()
    scores()


def test_kernels_are_taken_for_float32_on_a_cpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernels.usable(torch.zeros(2))
    assert not kernels.usable(torch.zeros(2), torch.zeros(2, dtype=torch.float64))
    assert not kernels.usable(torch.zeros(2, device="meta"))
    monkeypatch.setattr(losses, "sampled_softmax", None)  # as if it were not there
    counts = torch.ones(2, 3, dtype=torch.bool)
    softmax(torch.zeros(2).double(), torch.zeros(2, 3).double(), counts)
    with pytest.raises(TypeError):
        softmax(torch.zeros(2), torch.zeros(2, 3), counts)
