"""What a stored model must be before it is scored: its tensors' shapes and types, its settings.

The kernels that rank do not look where they read, so nothing that does not fit gets to them. One
letter a dimension: I items and U users of the model's tables, the others as the model itself has
them (D, K, W, Y, N weights), the same wherever they stand.
"""

from typing import Any

import numpy as np
from pydantic import ValidationError

from rum_core.errors import DamagedError, one_line
from rum_core.models.registry import MODELS, OF_NEIGHBOURS
from rum_core.settings import Model

Tensors = dict[str, np.ndarray]

_AFFINE = {
    f"{name}.{part}": shape
    for name in ("erase", "add")
    for part, shape in (("weight", "DD"), ("bias", "D"))
}
_LAYERS = dict.fromkeys(("query", "key", "value", "inner", "outer"), "YDD")
_NEIGHBOURS = {"indptr": "P", "indices": "N", "weights": "N", "item_bias": "I"}
_COUNTED = {f"transitions.{name}": _NEIGHBOURS[name] for name in ("indptr", "indices", "weights")}
_OPEN: dict[str, dict[str, str]] = {  # by MERGE and PREDICT
    "add": {},
    "product": {},
    "concat": {"merge": "DE"},
    "inner": {},
    "network": {"product": "D", "hidden": "DE", "hidden_bias": "D", "out": "D"},
}
_TYPES = {"indptr": np.int64, "indices": np.int32}  # of the others: float32

SHAPES: dict[str, dict[str, str]] = {
    "rum item": {"user": "UD", "item": "ID"},
    "rum feature": {"user": "UD", "item": "ID", "feature": "KD", **_AFFINE},
    "popular": {},
    "mf": {"user": "UD", "item": "ID"},
    "fpmc": {"user": "UD", "item": "ID", "last": "ID", "next": "ID"},
    "dream": {"item": "ID", "read.weight": "DD", "read.bias": "D", "carry.weight": "DD"},
    "sasrec": {
        "item": "ID",
        "position": "WD",
        **_LAYERS,
        "inner_bias": "YD",
        "outer_bias": "YD",
        "norm_scale": "ZD",
        "norm_shift": "ZD",
    },
    **dict.fromkeys(OF_NEIGHBOURS, _NEIGHBOURS),
}
NEEDED = {"rum": ("level", "slots", "alpha", "beta"), "sasrec": ("window",)} | dict.fromkeys(
    OF_NEIGHBOURS, ("decay",)
)


def check_stored(config: dict[str, Any], tensors: Tensors, items: int, users: int) -> None:
    """DamagedError, in one line, where a model of I items and U users cannot be scored."""
    name = str(config.get("model"))
    if name not in MODELS:
        raise DamagedError(
            f"it is of kind {name[:80]!r}, this program knows {', '.join(MODELS)}: use the version "
            "that trained it"
        )
    settings = _settings(name, config)
    sizes = {"I": items, "U": users}
    shapes = SHAPES[f"rum {settings.level}" if name == "rum" else name]
    if name == "rum":
        shapes = {**shapes, **_OPEN[settings.merge], **_OPEN[settings.predict]}
    if settings.counts:
        shapes = {**shapes, **_COUNTED, "mixture": "G"}
    optional = {"item_bias": "I"} if "item" in shapes else {}
    for tensor, shape in {**shapes, **optional}.items():
        if tensor in tensors:
            _check_tensor(tensor, tensors[tensor], shape, sizes)
        elif tensor in shapes:
            raise DamagedError(f"tensor {tensor} is not there")
    stated = {"D": settings.dim, "K": settings.slots, "W": settings.window, "Y": settings.layers}
    for letter, key in (("D", "dim"), ("K", "slots"), ("W", "window"), ("Y", "layers")):
        if key in config and sizes.get(letter, stated[letter]) != stated[letter]:
            raise DamagedError(f"its tensors have {key} {sizes[letter]}, its config {config[key]}")
    if "Y" in sizes and sizes["Z"] != 2 * sizes["Y"] + 1:
        raise DamagedError("it has more or fewer norms than its layers need")
    if "E" in sizes and sizes["E"] != 2 * sizes["D"]:
        raise DamagedError(f"tensor merge or hidden has {sizes['E']} columns, not 2 D")
    if sizes.get("G", 2) != 2:
        raise DamagedError(f"tensor mixture has {sizes['G']} numbers, not 2")
    for prefix in ("", "transitions."):
        if f"{prefix}indptr" in shapes:
            _check_rows(tensors[f"{prefix}indptr"], tensors[f"{prefix}indices"], items)
    for tensor in ("transitions.weights", "mixture") if settings.counts else ():
        if (tensors[tensor] < 0).any():
            raise DamagedError(f"tensor {tensor} has numbers below 0")


def _settings(name: str, config: dict[str, Any]) -> Model:
    lost = [key for key in NEEDED.get(name, ()) if key not in config]
    if lost:
        raise DamagedError(f"its config names no {lost[0]}")
    if config.get("transitions") and "decay" not in config:
        raise DamagedError("its config names no decay")
    given = {key: config[key] for key in Model.model_fields if key in config and key != "name"}
    given.setdefault("transitions", False)
    try:
        return Model.model_validate({**given, "name": name})
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise DamagedError(f"its config has a bad {where}: {one_line(problem['msg'])}") from None


def _check_tensor(name: str, tensor: np.ndarray, shape: str, sizes: dict[str, int]) -> None:
    if tensor.dtype != _TYPES.get(name.removeprefix("transitions."), np.float32):
        raise DamagedError(f"tensor {name} is {tensor.dtype}")
    if tensor.ndim != len(shape):
        raise DamagedError(f"tensor {name} has {tensor.ndim} dimensions, not {len(shape)}")
    for letter, size in zip(shape, tensor.shape, strict=True):
        if sizes.setdefault(letter, size) != size:
            raise DamagedError(
                f"tensor {name} has the shape {tensor.shape}, but {letter} is {sizes[letter]}"
            )


def _check_rows(indptr: np.ndarray, indices: np.ndarray, items: int) -> None:
    whole = len(indptr) == items + 1 and indptr[0] == 0 and indptr[-1] == len(indices)
    if not whole or (np.diff(indptr) < 0).any():
        raise DamagedError("tensor indptr does not divide the weights among the items")
    if len(indices) and not 0 <= indices.min() <= indices.max() < items:
        raise DamagedError("tensor indices names items that do not exist")
