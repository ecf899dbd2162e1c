"""What is searched for each model, and in which ranges: the one place where that is said.

A space maps names of settings to domains of Ray Tune. A point is one choice: names to values.
"""

from itertools import product
from typing import Any

import numpy as np
from ray import tune
from ray.tune.search.sample import Domain

from rum_core.errors import RumError
from rum_core.models.registry import MODELS
from rum_core.settings import Settings, from_dict
from rum_core.training.pairs import TRIED

Space = dict[str, Domain]
Point = dict[str, Any]

_GRADIENTS: Space = {
    "model.dim": tune.choice([32, 64, 128, 256]),
    "model.init_std": tune.loguniform(0.01, 0.2),
    "train.learning_rate": tune.loguniform(0.0005, 0.02),
    "train.dropout": tune.uniform(0.0, 0.8),
    "train.batch_users": tune.choice([32, 64, 128, 256]),
}
_MEMORY: Space = {
    "model.slots": tune.choice([5, 10, 20, 40]),
    "model.alpha": tune.uniform(0.2, 2.0),
    "model.beta": tune.loguniform(0.25, 4.0),
}
_OF_FEATURES: Space = {  # few slots fade, and a READ is K times weaker
    "model.slots": tune.choice([2, 4, 8, 20]),
    "model.alpha": tune.loguniform(1.0, 100.0),
}
_NEIGHBOURS: Space = {
    "model.decay": tune.uniform(0.6, 1.0),
    "model.neighbours": tune.choice([100, 200, 500, 1000]),
}
_PAIRS: Space = {
    **_NEIGHBOURS,
    "model.gap": tune.choice([1, 2, 5, 10, 20, 50]),
    "model.gap_decay": tune.uniform(0.5, 1.0),
    "model.backward": tune.uniform(0.0, 0.5),
    "model.from_power": tune.uniform(0.0, 0.8),
    "model.to_power": tune.uniform(0.0, 0.8),
}
DEFAULT: dict[str, Space] = {
    "rum": {**_GRADIENTS, **_MEMORY},
    "popular": {},
    "mf": _GRADIENTS,
    "fpmc": _GRADIENTS,
    "dream": _GRADIENTS,
    "sasrec": {
        **_GRADIENTS,
        "model.window": tune.choice([20, 50, 100]),
        "model.layers": tune.choice([1, 2, 3]),
    },
    "itemknn": {**_NEIGHBOURS, "model.shrink": tune.loguniform(1.0, 1000.0)},
    "seqknn": _PAIRS,
    "ease": {**_NEIGHBOURS, "model.ease_l2": tune.loguniform(10.0, 3000.0)},
}
# section 5.1 of the paper, for its own loss and optimizer
PAPER: dict[str, tuple[float, ...]] = {
    "train.learning_rate": (1.0, 0.1, 0.01, 0.001, 0.0001),
    "model.dim": (10, 20, 30, 40, 50),
    "train.l2": (0.1, 0.01, 0.001, 0.0001),
}
_OF_PAPER = {"loss": "bce", "negatives": 1, "optimizer": "sgd"}


def points_of(settings: Settings) -> list[Point]:
    """The points to try, in order. The n-th does not depend on how many there are."""
    if settings.tune.space == "paper":
        return _grid(settings)[: settings.tune.trials]
    model = settings.model
    space = DEFAULT[model.name] | (_PAIRS if model.counts else {})
    if model.chooses_pairs and settings.train.patience:
        chosen = {f"model.{name}" for step in TRIED for name in step[0]}
        space = {name: domain for name, domain in space.items() if name not in chosen}
    if model.name == "rum" and model.level == "feature":
        space |= _OF_FEATURES
    drawn = [_drawn(space, settings.train.seed, n) for n in range(1, settings.tune.trials)]
    return [_given(space, settings), *(drawn if space else [])]


def _given(space: Space, settings: Settings) -> Point:
    """The point that the settings are at."""
    values = settings.model_dump()
    return {name: _at(values, name) for name in space}


def _at(values: dict[str, Any], name: str) -> Any:
    section, field = name.split(".")
    return values[section][field]


def _drawn(space: Space, seed: int, number: int) -> Point:
    rng = np.random.default_rng([seed, number])
    point = {name: domain.sample(random_state=rng) for name, domain in space.items()}
    return {n: float(f"{v:.3g}") if isinstance(v, float) else v for n, v in point.items()}


def _grid(settings: Settings) -> list[Point]:
    """All points of the paper's grid, in an order of the seed."""
    model, train = settings.model.name, settings.train
    if not MODELS[model].gradients:
        raise RumError(
            f"tune.space = paper is of learning rate, D and lambda, which mean nothing to {model}: "
            "use --tune.space default"
        )
    for name, value in _OF_PAPER.items():
        if getattr(train, name) != value:
            raise RumError(
                f"tune.space = paper is for train.{name} = {value}, not {getattr(train, name)}: "
                "begin with --config paper_item or paper_feature"
            )
    every = [dict(zip(PAPER, values, strict=True)) for values in product(*PAPER.values())]
    return [every[n] for n in np.random.default_rng(settings.train.seed).permutation(len(every))]


def by_section(point: Point) -> dict[str, dict[str, Any]]:
    """The values of a point by section and name, as a settings file has them."""
    sections: dict[str, dict[str, Any]] = {}
    for name, value in point.items():
        section, field = name.split(".")
        sections.setdefault(section, {})[field] = value
    return sections


def settled(settings: Settings, chosen: dict[str, dict[str, Any]]) -> Settings:
    """The settings with these values of sections in their place."""
    values = settings.model_dump()
    for section, fields in chosen.items():
        values[section] |= fields
    return from_dict(values)
