"""Paired timing: every implementation of a case runs once in each round, so what the machine does meets all alike."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

Work = Callable[[], object]
Clock = Callable[[Work], float]

WARM_UP = 2
MAX_ROUNDS = 1000
CACHE_BYTES = 2**28  # four times an H200's L2; written over before each timed call on a GPU
COPY_BYTES = {"cpu": 2**27, "cuda": 2**30}  # far larger than any cache


@dataclass(frozen=True)
class Spread:
    """Median with the 20th and the 80th percentile."""

    median: float
    p20: float
    p80: float


def spread(values: Sequence[float]) -> Spread:
    """Of at least two values."""
    fifths = statistics.quantiles(values, n=5, method="inclusive")
    return Spread(statistics.median(values), fifths[0], fifths[-1])


def ratios(times: Sequence[float], baseline: Sequence[float]) -> Spread:
    """Of time over the baseline's time in the same round."""
    return spread([time / base for time, base in zip(times, baseline, strict=True)])


def interleave(
    works: Mapping[str, Work],
    clock: Clock,
    *,
    rounds: int,
    seconds: float,
    warm_up: int = WARM_UP,
    settle: bool = False,
) -> dict[str, list[float]]:
    """Seconds of each work in each round; every second round runs in the opposite order.

    Args:
        works: what to time, by name.
        clock: runs one work and says how long it took.
        settle: run each work once more, untimed, before it is timed, as it follows itself in a training loop: on a CPU
            what another implementation left in the allocator and the caches changes the time by a quarter.
        rounds: at least so many, 2 or more.
        seconds: and more, up to MAX_ROUNDS, until so much time has passed.
        warm_up: untimed rounds before the first.
    """
    assert rounds >= 2
    for _ in range(warm_up):
        for work in works.values():
            work()
    times: dict[str, list[float]] = {name: [] for name in works}
    order = list(works)
    collecting = gc.isenabled()
    gc.disable()  # a collection would land in one implementation's time
    begun = time.perf_counter()
    try:
        done = 0
        while done < rounds or (done < MAX_ROUNDS and time.perf_counter() - begun < seconds):
            for name in order:
                if settle:
                    works[name]()
                times[name].append(clock(works[name]))
            order.reverse()
            done += 1
    finally:
        if collecting:
            gc.enable()
    return times


def cpu_clock(work: Work) -> float:
    """Seconds of one call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def cuda_clock() -> Clock:
    """A clock of CUDA events on the current stream, which starts each call with a cold L2."""
    cache = torch.empty(CACHE_BYTES, dtype=torch.int8, device="cuda")

    def clock(work: Work) -> float:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        cache.zero_()
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        return float(begin.elapsed_time(end)) / 1e3  # milliseconds

    return clock


def clock_of(device: torch.device) -> Clock:
    """The clock for work on that device."""
    return cuda_clock() if device.type == "cuda" else cpu_clock


def captured(work: Work) -> Work:
    """The replay of a CUDA graph of `work`.

    Raises:
        RuntimeError: if the work cannot be captured.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # as torch asks for before a capture: lazy set-up must not be captured
        for _ in range(WARM_UP):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def copy_bandwidth(device: torch.device, clock: Clock, size: int | None = None, rounds: int = 15) -> float:
    """Bytes per second, read and written, of copying `size` bytes; the median of `rounds` copies."""
    source = torch.zeros(size or COPY_BYTES[device.type], dtype=torch.int8, device=device)
    target = torch.zeros_like(source)
    times = interleave({"copy": lambda: target.copy_(source)}, clock, rounds=rounds, seconds=0)["copy"]
    return 2 * source.numel() / statistics.median(times)
