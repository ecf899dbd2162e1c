"""What is added to every score of an item: the model's own b_i, and the shop's boost."""

import numpy as np

from rum_core.store.checkpoint import SavedModel


def boost_of(model: SavedModel) -> np.ndarray:
    """The shop's boosts (I,) float64, zeros where none were given (ranking/rules.py)."""
    return np.zeros(len(model.catalog)) if model.boost is None else model.boost


def item_bias(model: SavedModel) -> np.ndarray:
    """b_i and boost together (I,) float64."""
    own = model.tensors.get("item_bias", np.zeros(len(model.catalog), np.float32))
    return np.asarray(own.astype(np.float64) + boost_of(model))
