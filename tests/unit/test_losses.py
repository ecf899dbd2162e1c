"""Losses against their definitions in plain numbers."""

import math

import pytest
import torch

from rum_core.training.losses import LOSSES

POSITIVE, NEGATIVE = 0.4, [1.0, -2.0, 0.3]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def loss(name: str, negative: list[float], counts: list[bool]) -> torch.Tensor:
    args = torch.tensor(POSITIVE), torch.tensor(negative), torch.tensor(counts)
    return LOSSES[name](*args)


@pytest.mark.parametrize("counts", [[True, True, True], [True, False, True], [False] * 3])
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_definitions(name: str, counts: list[bool]) -> None:
    kept = [y for y, one in zip(NEGATIVE, counts, strict=True) if one]
    expected = {
        "bce": -math.log(sigmoid(POSITIVE)) - sum(math.log(1 - sigmoid(y)) for y in kept),
        "bpr": -sum(math.log(sigmoid(POSITIVE - y)) for y in kept),
        "softmax": -math.log(math.exp(POSITIVE) / sum(math.exp(y) for y in [POSITIVE, *kept])),
    }
    assert float(loss(name, NEGATIVE, counts)) == pytest.approx(expected[name], abs=1e-6)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_large_scores_and_left_out_negatives_have_finite_gradients(name: str) -> None:
    positive = torch.tensor([-90.0, 90.0], requires_grad=True)
    negative = torch.tensor([[90.0, -90.0], [90.0, 1e4]], requires_grad=True)
    counts = torch.tensor([[True, True], [False, False]])
    LOSSES[name](positive, negative, counts).sum().backward()
    assert torch.isfinite(positive.grad).all()
    assert torch.isfinite(negative.grad).all()
    assert (negative.grad[1] == 0).all()


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_better_positive_costs_less(name: str) -> None:
    negative, counts = torch.tensor([0.5, -0.2]), torch.tensor([True, True])
    values = [float(LOSSES[name](torch.tensor(y), negative, counts)) for y in (-1.0, 0.0, 2.0)]
    assert values[0] > values[1] > values[2]
