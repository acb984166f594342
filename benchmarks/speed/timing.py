"""Paired timing: every implementation of a case runs once in each round, so what the machine does meets all alike.

A case: one thing to time, in the implementations that do it, and the rows that come out.
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeVar

import torch

from benchmarks.speed.rows import OURS, SpeedRow
from seattn.core.rows import Conditions

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


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
Value = TypeVar("Value")


@dataclass(frozen=True)
class Plan:
    """What a run is made for.

    Args:
        device: cpu or cuda.
        compiled: time timm's under torch.compile too.
        quick: tiny sizes, to see that all works; the times mean nothing.
    """

    device: torch.device
    compiled: bool = False
    quick: bool = False

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    def pick(self, quick: Value, cpu: Value, cuda: Value) -> Value:
        """The value for this run."""
        return quick if self.quick else cuda if self.cuda else cpu


@dataclass(frozen=True)
class Case:
    """One group of rows to come; the columns as in `SpeedRow`.

    Args:
        make: builds the works by implementation, the one called seattn among them; called when its turn comes.
        passes: over the input's size that the case needs at least, or None where that means little.
        urgent: a bar stands on it: it runs before those on which none does.
        rounds, seconds: at least so many rounds, and more until so much time has passed.
        graphs: time it under CUDA graphs too, on a GPU.
    """

    what: str
    case: str
    mode: str
    shape: tuple[int, ...]
    dtype: str
    memory_format: str
    make: Callable[[], Mapping[str, Work]]
    passes: int | None = None
    urgent: bool = False
    rounds: int = 2
    seconds: float = 0.0
    graphs: bool = True

    @property
    def title(self) -> str:
        shape = "x".join(map(str, self.shape))
        return f"{self.case} {self.mode} {shape} {self.dtype} {self.memory_format}"


@dataclass(frozen=True)
class Bench:
    """The device, its clock and what holds for all rows of a run."""

    clock: Clock
    bandwidth: float
    where: Conditions
    log: Callable[[str], None]

    def rows(self, case: Case, *, graphs: bool) -> Iterator[list[SpeedRow]]:
        """Time the case: one group of rows, and one more under CUDA graphs where asked for."""
        works = self._compiled(case, case.make())
        assert OURS in works
        yield self._group(case, works, cuda_graph=False)
        if graphs and case.graphs:
            replays = self._captured(case, works)
            if OURS in replays:
                yield self._group(case, replays, cuda_graph=True)

    def _compiled(self, case: Case, works: Mapping[str, Work]) -> dict[str, Work]:
        kept = dict(works)
        for name in works:
            if name.endswith("compile"):
                try:
                    works[name]()
                except Exception as error:  # of many kinds: a missing C compiler, a fault of inductor's, no memory
                    self.log(f"{case.title}: {name} is left out: {type(error).__name__}")
                    del kept[name]
        return kept

    def _captured(self, case: Case, works: Mapping[str, Work]) -> dict[str, Work]:
        replays = {}
        for name, work in works.items():
            try:
                replays[name] = captured(work)
            except RuntimeError as error:
                self.log(f"{case.title}: {name} cannot be captured: {str(error).splitlines()[0]}")
        return replays

    def _group(self, case: Case, works: Mapping[str, Work], *, cuda_graph: bool) -> list[SpeedRow]:
        settle = self.clock is cpu_clock
        times = interleave(works, self.clock, rounds=case.rounds, seconds=case.seconds, settle=settle)
        moved = None
        if case.passes is not None:
            moved = case.passes * prod(case.shape) * DTYPES[case.dtype].itemsize
        rows = []
        for name, taken in times.items():
            each, ratio = _rounded(spread(taken)), _rounded(ratios(taken, times[OURS]))
            percent = None if moved is None else _digits(100 * moved / each.median / self.bandwidth)
            rows.append(
                SpeedRow(
                    what=case.what,
                    case=case.case,
                    mode=case.mode,
                    shape="x".join(map(str, case.shape)),
                    dtype=case.dtype,
                    memory_format=case.memory_format,
                    implementation=name,
                    cuda_graph=cuda_graph,
                    n=len(taken),
                    median=each.median,
                    p20=each.p20,
                    p80=each.p80,
                    ratio=ratio.median,
                    ratio_p20=ratio.p20,
                    ratio_p80=ratio.p80,
                    bytes_moved=moved,
                    copy_percent=percent,
                    copy_bandwidth=_digits(self.bandwidth),
                    conditions=self.where,
                )
            )
        return rows


def _digits(value: float) -> float:
    return float(f"{value:.4g}")  # a time repeats to less than that


def _rounded(of: Spread) -> Spread:
    return Spread(_digits(of.median), _digits(of.p20), _digits(of.p80))
