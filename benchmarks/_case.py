"""A case: one thing to time, in the implementations that do it, and the rows that come out."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import TypeVar

import torch

from benchmarks.speed.rows import OURS, SpeedRow
from benchmarks.speed.timing import Clock, Spread, Work, captured, cpu_clock, interleave, ratios, spread
from seattn.core.rows import Conditions

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
