"""The time that nets take for one image.

The calls alternate between the nets: a busy moment of the machine affects all of them.
"""

import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_ROUNDS = 30


@torch.inference_mode()
def milliseconds(runs: Sequence[Callable[[Tensor], Tensor]], x: Tensor) -> list[float]:
    """The median time of each of `runs` over 30 calls with the input x (1, C, H, W)."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(_ROUNDS):
        for run, calls in zip(runs, times, strict=True):
            _finish(run, x)  # untimed: the first call after another net's is slower
            start = time.perf_counter()
            _finish(run, x)
            calls.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(calls) for calls in times]


def _finish(run: Callable[[Tensor], Tensor], x: Tensor) -> None:
    run(x)
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
