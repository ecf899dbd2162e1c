"""What the kernels that train on a CPU share: `windows`, `replays` and `training.softmax`."""

import torch
from numba import config, set_num_threads
from torch import Tensor

FAST = {"contract", "nnan", "nsz"}  # what the compiler may do with sums: it keeps their order


def usable(*tensors: Tensor) -> bool:
    """Whether kernels are for such numbers: float32 on a CPU."""
    return all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)


def as_many_threads() -> None:
    """From here on numba takes as many threads as torch."""
    most: int = config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    set_num_threads(min(torch.get_num_threads(), most))
