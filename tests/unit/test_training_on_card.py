"""Training on a GPU makes the model that training on a CPU makes, but for rounding.

Only where there is a card; the machines of CI have none.
"""

from typing import Any

import numpy as np
import pytest
import torch

from rum_core import settings as s
from rum_core.training.loop import Resume, State, fit
from rum_core.training.step import Worker
from tests.unit.test_training import CATALOG, HISTORIES, copied, settings_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no card")

CARD = "cuda"
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("item", {}),
    ("counted", {}),
    ("feature", {}),
    ("feature", {"start": "random"}),
    *(("item", {"merge": merge}) for merge in ("product", "concat")),
    *((level, {"predict": "network"}) for level in ("item", "feature")),
    *(("item", {"name": name}) for name in ("mf", "fpmc", "dream", "sasrec")),
]
LOSSES: list[dict[str, Any]] = [
    {"loss": "softmax", "dropout": 0.3},
    {"loss": "bce", "negatives": 2},
    {"loss": "bpr", "negatives": 2, "bptt": 3, "optimizer": "sgd", "l2": 0.01},
]


def fitted(
    chosen: s.Settings, device: str, resume: Resume | None = None
) -> tuple[dict[str, np.ndarray], State, Resume]:
    """The model, its last state, and what a crash after the first epoch would have left."""
    worker, left, state = Worker(device=torch.device(device)), None, None
    for state in fit(chosen, HISTORIES, CATALOG, worker, resume):
        if left is None:
            progress, shared, own = copied(state)
            left = Resume(progress, shared, [own])
    assert state is not None
    assert left is not None
    return state.tensors(len(HISTORIES), worker), state, left


@pytest.mark.parametrize("train", LOSSES, ids=lambda train: train["loss"])
@pytest.mark.parametrize(("level", "model"), MODELS, ids=str)
def test_the_model_is_the_one_of_the_cpu(
    level: str, model: dict[str, Any], train: dict[str, Any]
) -> None:
    chosen = settings_of(level, model, **train)
    expected, _, first = fitted(chosen, "cpu")
    found, _, left = fitted(chosen, CARD)
    again, _, _ = fitted(chosen, CARD, left)
    assert found.keys() == expected.keys() == again.keys()
    for name, tensor in expected.items():
        for other in (found, again):
            np.testing.assert_allclose(other[name], tensor, atol=1e-3, rtol=1e-3, err_msg=name)
    learned = {**first.shared, **first.own[0]}
    moved = [np.abs(expected[n] - t.numpy()).max() for n, t in learned.items() if n in expected]
    assert max(moved) > 5e-3  # after the first epoch too


def test_validation_chooses_as_on_the_cpu() -> None:
    chosen = settings_of("counted", epochs=4, patience=2)
    expected, found = (fitted(chosen, device)[1].progress for device in ("cpu", CARD))
    one_pair = 1 / len(HISTORIES)  # of items that score nearly alike, and change places
    np.testing.assert_allclose(found.validation, expected.validation, atol=one_pair)
    assert found.pairs == expected.pairs
