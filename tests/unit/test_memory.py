"""READ and WRITE against the oracle; the fast forms against the equations; what padding does."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rum_core.models import memory
from tests import oracle


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def windows(w: torch.Tensor, v: torch.Tensor, slots: int, beta: float) -> np.ndarray:
    """sum_k z_k v_k of the last K rows before each (B, L, C), by the oracle's softmax of w."""
    out = np.zeros(w.shape)
    for b, t, c in np.ndindex(*w.shape):
        held, read = (x[b, max(0, t - slots) : t, c].numpy() for x in (w, v))
        if len(held):
            out[b, t, c] = oracle.softmax(list(beta * held)) @ read
    return out


@given(
    st.integers(0, 99), st.integers(1, 9), st.integers(1, 6), st.sampled_from([0.0, 0.3, 1.0, 99.0])
)
def test_shared_read_is_each_windows_softmax(
    seed: int, length: int, slots: int, beta: float
) -> None:
    w = 3 * normal(seed, 2, length, 4)
    v = normal(seed + 1, 2, length, 4)
    for values in (w, v):
        read = memory.read_shared(w, values, memory.window(length, slots), beta)
        expected = windows(w, values, slots, beta)
        np.testing.assert_allclose(read, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("spread", [59.0, 61.0, 5000.0])
def test_shared_read_survives_a_wide_spread_in_float32(spread: float) -> None:
    """A window far below the column's maximum keeps its own attention, and its gradient."""
    w = torch.tensor([0.0, 1.0, spread, 0.5, 0.2, 0.4, 0.3]).reshape(1, 7, 1).requires_grad_()
    inside = memory.window(7, 2)
    read = memory.read_shared(w, w, inside, 1.0)
    expected = windows(w.detach().double(), w.detach().double(), 2, 1.0)
    np.testing.assert_allclose(read.detach(), expected, rtol=1e-5)
    read[0, 5:].sum().backward()  # windows that do not hold the maximum
    slow = w.detach().double().requires_grad_()
    memory.read_item(*[slow[0, :, 0].expand(7, 7)] * 2, inside, 1.0)[5:].sum().backward()
    np.testing.assert_allclose(w.grad, slow.grad, atol=1e-5)


def test_the_two_paths_of_the_shared_read_have_one_gradient() -> None:
    inside = memory.window(8, 3)
    grads = []
    for path in (memory.read_shared, memory._read_windows):
        w, v = (normal(seed, 2, 8, 5).requires_grad_() for seed in (1, 3))
        (path(w, v, inside, 0.7) * normal(2, 2, 8, 5)).sum().backward()
        grads.append((w.grad, v.grad))
    torch.testing.assert_close(grads[0], grads[1])


def test_item_read_leaves_empty_slots_out() -> None:
    w = torch.tensor([[2.0, 7.0, 1.0], [2.0, 7.0, 1.0]], dtype=torch.float64)
    filled = torch.tensor([[True, False, True], [False, False, False]])
    z = oracle.softmax([2.0, 1.0])
    np.testing.assert_allclose(memory.read_item(w, w, filled, 1.0), [z @ [2.0, 1.0], 0.0])


def test_window_is_the_last_k_before() -> None:
    inside = memory.window(6, 2)
    held = [torch.nonzero(row).flatten().tolist() for row in inside]
    assert held == [[], [0], [0, 1], [1, 2], [2, 3], [3, 4]]


def feature_side(seed: int, items: int, D: int, K: int) -> tuple[dict[str, np.ndarray], tuple]:
    shapes = {
        "item": (items, D),
        "feature": (K, D),
        "erase.weight": (D, D),
        "erase.bias": (D,),
        "add.weight": (D, D),
        "add.bias": (D,),
    }
    t = {name: normal(seed + n, *shape).numpy() for n, (name, shape) in enumerate(shapes.items())}
    q, F, E, b_e, A, b_a = (torch.from_numpy(t[name]) for name in shapes)
    return t, (memory.address(q, F, 0.8), memory.erase(q, E, b_e), memory.add(q, A, b_a))


def test_feature_replay_is_the_oracles_and_padding_changes_nothing() -> None:
    tensors, (z, e, a) = feature_side(0, 7, 4, 3)
    config = {"level": "feature", "slots": 3, "beta": 0.8}
    tokens = torch.tensor([[3, 3, 0, 6], [5, 1, 0, 0]])
    real = torch.tensor([[True] * 4, [True, True, False, False]])
    M = torch.zeros(2, 3, 4, dtype=torch.float64)
    before, after = memory.replay_feature(M, z[tokens], e[tokens], a[tokens], real)
    for user, history in enumerate(([3, 3, 0, 6], [5, 1])):
        for t in range(len(history)):
            expected = oracle.replay(tensors, config, history[:t])
            np.testing.assert_allclose(before[user, t], expected)
        np.testing.assert_allclose(after[user], oracle.replay(tensors, config, history))


def test_a_prefix_and_then_the_rest_is_the_whole() -> None:
    _, (z, e, a) = feature_side(3, 7, 4, 3)
    tokens = torch.tensor([[1, 2, 3, 4, 5, 1]])
    real = torch.ones(1, 6, dtype=torch.bool)
    M = torch.zeros(1, 3, 4, dtype=torch.float64)
    whole = memory.replay_feature(M, z[tokens], e[tokens], a[tokens], real)[1]
    for part in (tokens[:, :4], tokens[:, 4:]):
        M = memory.replay_feature(M, z[part], e[part], a[part], real[:, : part.shape[1]])[1]
    assert torch.equal(M, whole)


def test_feature_read_is_one_product() -> None:
    q, z, M = normal(0, 5, 4), torch.softmax(normal(1, 5, 3), dim=-1), normal(2, 2, 3, 4)
    expected = torch.einsum("ck,bkd,cd->bc", z, M, q)
    torch.testing.assert_close(memory.read_feature_shared(q, z, M), expected)
    torch.testing.assert_close(memory.read_feature(q, z, M[:, None]), expected)
