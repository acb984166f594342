"""Paired timing: every implementation of a case runs once in each round, so the state of the machine affects all alike.

A case is one computation to time. It names the implementations that compute it, and becomes one group of rows.
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TypeVar

import torch

from benchmarks.speed.rows import OURS, VARIANTS, SpeedRow
from seattn.core.rows import Conditions

Work = Callable[[], object]
Clock = Callable[[Work], float]
Value = TypeVar("Value")

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
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
    """The spread of two or more values."""
    quintiles = statistics.quantiles(values, n=5, method="inclusive")
    return Spread(statistics.median(values), quintiles[0], quintiles[-1])


def ratios(times: Sequence[float], baseline: Sequence[float]) -> Spread:
    """The spread of each time over the baseline's time in the same round."""
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
    """The seconds of each work in each round; every second round runs in the opposite order.

    Args:
        works: the functions to time, by name.
        clock: runs one work and returns its seconds.
        settle: run each work once, untimed, before it is timed, because in a training loop each call follows a call of
            the same work. On a CPU, the state in which another implementation left the allocator and the caches
            changes the time by a quarter.
        rounds: the least number of rounds, 2 or more.
        seconds: further rounds run, up to MAX_ROUNDS, until this time has passed.
        warm_up: untimed rounds before the first.
    """
    assert rounds >= 2
    for _ in range(warm_up):
        for work in works.values():
            work()
    times: dict[str, list[float]] = {name: [] for name in works}
    order = list(works)
    collecting = gc.isenabled()
    gc.disable()  # a collection would fall into the time of one implementation
    start = time.perf_counter()
    try:
        done = 0
        while done < rounds or (done < MAX_ROUNDS and time.perf_counter() - start < seconds):
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
    """The seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def cuda_clock() -> Clock:
    """A clock of CUDA events on the current stream; every call starts with a cold L2 cache."""
    cache = torch.empty(CACHE_BYTES, dtype=torch.int8, device="cuda")

    def clock(work: Work) -> float:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        cache.zero_()
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end)) / 1e3  # milliseconds

    return clock


def captured(work: Work) -> Work:
    """The replay of a CUDA graph of `work`.

    Raises:
        RuntimeError: if the work cannot be captured.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # torch asks for warm-up calls before a capture: lazy set-up must not be captured
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


@dataclass(frozen=True)
class Plan:
    """The choices of one run of the benchmark.

    Args:
        device: cpu or cuda.
        compiled: also time timm's code under torch.compile, and on a CPU and for nets ours too.
        quick: tiny sizes that show whether everything works; the times mean nothing.
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
    """One group of rows to measure; `what` to `memory_format` are columns of `SpeedRow`.

    Args:
        make: builds the works of a case by implementation, one of which is called seattn.
        passes: how often the case reads or writes the input's size at least; None where this number means little.
        urgent: a bar needs this case, so it runs before the cases that no bar needs.
        rounds, seconds: the least number of rounds, and further rounds until this time has passed.
        graphs: also time it in CUDA graphs, on a GPU.
    """

    what: str
    case: str
    mode: str
    shape: tuple[int, ...]
    dtype: str
    memory_format: str
    make: Callable[[Plan, "Case"], Mapping[str, Work]]
    passes: int | None = None
    urgent: bool = False
    rounds: int = 2
    seconds: float = 0.0
    graphs: bool = True

    @property
    def size(self) -> str:
        """The shape as a row has it: 2x3x32x32."""
        return "x".join(map(str, self.shape))

    @property
    def title(self) -> str:
        return f"{self.case} {self.mode} {self.size} {self.dtype} {self.memory_format}"

    def random(self, device: torch.device, count: int) -> list[torch.Tensor]:
        """That many random tensors of the case's shape, dtype and layout."""
        memory_format, dtype = FORMATS[self.memory_format], DTYPES[self.dtype]
        made = [torch.randn(self.shape, device=device, dtype=dtype) for _ in range(count)]
        return [tensor.contiguous(memory_format=memory_format) for tensor in made]

    def pass_through(
        self, function: Callable[[], torch.Tensor], inputs: Sequence[torch.Tensor], dy: torch.Tensor
    ) -> Work:
        """The case's mode of `function`: forward without gradients, or forward and backward.

        Args:
            function: computes the output, which has the shape of `dy`.
            inputs: the tensors whose gradients the backward pass computes.
        """

        def forward() -> torch.Tensor:
            with torch.no_grad():
                return function()

        if self.mode == "forward":
            return forward
        for tensor in inputs:
            tensor.requires_grad_()
        return lambda: torch.autograd.grad(function(), inputs, dy)


@dataclass(frozen=True)
class Bench:
    """What all cases of a run share: the plan, the clock, the copy bandwidth, the conditions and the log."""

    plan: Plan
    clock: Clock
    bandwidth: float
    conditions: Conditions
    log: Callable[[str], None]

    def rows(self, case: Case) -> Iterator[list[SpeedRow]]:
        """Time the case: a group of rows for each form of ours, and on a GPU again in CUDA graphs."""
        works = self._compiled(case, case.make(self.plan, case))
        assert OURS in works
        yield from self._groups(case, works, cuda_graph=False)
        if self.plan.cuda and case.graphs:
            replays = self._captured(case, works)
            if OURS in replays:
                yield from self._groups(case, replays, cuda_graph=True)

    def _compiled(self, case: Case, works: Mapping[str, Work]) -> dict[str, Work]:
        """The works without those that torch.compile fails on."""
        compiled = dict(works)
        for name in works:
            if name.endswith("compile"):
                try:
                    works[name]()
                except Exception as error:  # of many kinds: a missing C compiler, an error of inductor, no memory
                    self.log(f"{case.title}: {name} is left out: {type(error).__name__}")
                    del compiled[name]
        return compiled

    def _captured(self, case: Case, works: Mapping[str, Work]) -> dict[str, Work]:
        replays = {}
        for name, work in works.items():
            try:
                replays[name] = captured(work)
            except RuntimeError as error:
                self.log(f"{case.title}: {name} cannot be captured: {str(error).splitlines()[0]}")
        return replays

    def _groups(self, case: Case, works: Mapping[str, Work], *, cuda_graph: bool) -> Iterator[list[SpeedRow]]:
        """The rows of the case. Each other form of ours has a group of its own, with its name in the mode."""
        settle = self.clock is cpu_clock
        times = interleave(works, self.clock, rounds=case.rounds, seconds=case.seconds, settle=settle)
        for ours in (OURS, *VARIANTS):
            if ours in times:
                others = {name: seconds for name, seconds in times.items() if name != OURS and name not in VARIANTS}
                mode = case.mode if ours == OURS else f"{case.mode}_{VARIANTS[ours]}"
                yield self._compared({OURS: times[ours], **others}, replace(case, mode=mode), cuda_graph)

    def _compared(self, times: Mapping[str, list[float]], case: Case, cuda_graph: bool) -> list[SpeedRow]:
        moved = None
        if case.passes is not None:
            moved = case.passes * prod(case.shape) * DTYPES[case.dtype].itemsize
        rows = []
        for name, seconds in times.items():
            time, ratio = _rounded(spread(seconds)), _rounded(ratios(seconds, times[OURS]))
            rows.append(
                SpeedRow(
                    what=case.what,
                    case=case.case,
                    mode=case.mode,
                    shape=case.size,
                    dtype=case.dtype,
                    memory_format=case.memory_format,
                    implementation=name,
                    cuda_graph=cuda_graph,
                    n=len(seconds),
                    median=time.median,
                    p20=time.p20,
                    p80=time.p80,
                    ratio=ratio.median,
                    ratio_p20=ratio.p20,
                    ratio_p80=ratio.p80,
                    bytes_moved=moved,
                    copy_percent=None if moved is None else _digits(100 * moved / time.median / self.bandwidth),
                    copy_bandwidth=_digits(self.bandwidth),
                    conditions=self.conditions,
                )
            )
        return rows


def _digits(value: float) -> float:
    return float(f"{value:.4g}")  # repeated times differ by more than that


def _rounded(exact: Spread) -> Spread:
    return Spread(_digits(exact.median), _digits(exact.p20), _digits(exact.p80))
