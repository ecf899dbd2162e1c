"""What kernels on a CPU share: what they can be used for, and their threads."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from numba import config, get_num_threads, set_num_threads
from torch import Tensor

FAST = {"contract", "nnan", "nsz"}  # what the compiler may do with sums: it keeps their order


def usable(*tensors: Tensor) -> bool:
    """Whether kernels are for such numbers: float32 on a CPU."""
    return all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)


def use_threads(number: int) -> None:
    """From here on torch and this thread's kernels take so many threads, or as many as there are.

    Where numba starts its threads it tells OpenMP their number, which torch goes by too: so numba
    comes first, or torch has all of them again at the first kernel.
    """
    most: int = config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    set_num_threads(min(number, most))
    torch.set_num_threads(number)


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch and this thread's kernels take one thread meanwhile.

    Ranking goes from the one's kernels to the other's and back, and threads of the one that still
    wait for work hold the cores that the other's need: two took twice the time of one.
    """
    before = get_num_threads(), torch.get_num_threads()
    use_threads(1)
    try:
        yield
    finally:
        set_num_threads(before[0])
        torch.set_num_threads(before[1])
