"""The bars: what the rows of a run must reach, each as a number of theirs and its least value."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import geometric_mean

from benchmarks.speed.rows import SpeedRow

LARGE = 64_000_000  # bytes of the input from which launches do not count


@dataclass(frozen=True)
class Bar:
    """One number over the rows that `takes` takes: `reduce` of their `value`, at least `least`."""

    text: str
    least: float
    takes: Callable[[SpeedRow], bool]
    reduce: Callable[[Sequence[float]], float] = geometric_mean
    value: Callable[[SpeedRow], float | None] = lambda row: row.ratio
    unit: str = " ×"


@dataclass(frozen=True)
class Reached:
    """What the rows give for a bar, over n of them."""

    bar: Bar
    n: int
    value: float

    @property
    def holds(self) -> bool:
        return self.value >= self.bar.least


def _rows(
    case: str, mode: str, implementation: str, *, dtype: str, memory_format: str | None = None, graph: bool = False
) -> Callable[[SpeedRow], bool]:
    def takes(row: SpeedRow) -> bool:
        return (
            (row.case, row.mode, row.implementation, row.dtype) == (case, mode, implementation, dtype)
            and memory_format in (None, row.memory_format)
            and row.cuda_graph == graph
        )

    return takes


def _large(case: str, mode: str) -> Callable[[SpeedRow], bool]:
    takes = _rows(case, mode, "seattn", dtype="bfloat16", memory_format="channels_last", graph=True)
    return lambda row: takes(row) and row.input_bytes >= LARGE


def _step(case: str, implementation: str, dtype: str) -> Callable[[SpeedRow], bool]:
    return _rows(case, "training_step", implementation, dtype=dtype)


def _tail_on_cpu(memory_format: str) -> Callable[[SpeedRow], bool]:
    return _rows("se_tail", "forward_backward", "timm_eager", dtype="float32", memory_format=memory_format)


def _tail_on_gpu(case: str, mode: str, implementation: str) -> Callable[[SpeedRow], bool]:
    return _rows(case, mode, implementation, dtype="bfloat16", memory_format="channels_last", graph=True)


CPU_BARS = (
    Bar(
        "SE tail, forward + backward, fp32 channels_last: geometric mean over timm", 1.8, _tail_on_cpu("channels_last")
    ),
    Bar("SE tail, forward + backward, fp32 NCHW: geometric mean over timm", 1.3, _tail_on_cpu("contiguous")),
    Bar("the slowest of those shapes, channels_last", 1.0, _tail_on_cpu("channels_last"), min),
    Bar("the slowest of those shapes, NCHW", 1.0, _tail_on_cpu("contiguous"), min),
    *(
        Bar(
            f"training step of {net}, fp32, the slower layout, over timm",
            1.10,
            _step(net, "timm_eager", "float32"),
            min,
        )
        for net in ("se_resnet20_cifar", "se_resnet18_cifar")
    ),
)
_SE, _BN = ("se_tail", "forward"), ("bn_se_tail", "forward_backward")
_AMP = "autocast_bfloat16"
GPU_BARS = (
    Bar("SE tail, forward, T ≥ 64 MB: of the copy bandwidth", 85, _large(*_SE), min, lambda r: r.copy_percent, " %"),
    Bar(
        "BN + SE tail, training, T ≥ 64 MB: of the copy bandwidth",
        75,
        _large(*_BN),
        min,
        lambda r: r.copy_percent,
        " %",
    ),
    Bar("SE tail, forward, over torch.compile", 1.3, _tail_on_gpu(*_SE, "timm_compile")),
    Bar("BN + SE tail, forward + backward, over torch.compile", 1.2, _tail_on_gpu(*_BN, "timm_compile")),
    Bar("SE tail, forward, over eager", 2.3, _tail_on_gpu(*_SE, "timm_eager")),
    Bar("BN + SE tail, forward + backward, over eager", 2.3, _tail_on_gpu(*_BN, "timm_eager")),
    *(
        bar
        for net in ("se_resnet18_cifar", "seresnet50")
        for bar in (
            Bar(f"training step of {net} against the plain net with our tails", 0.98, _step(net, "plain", _AMP)),
            Bar(f"training step of {net} over timm's plain net", 1.0, _step(net, "plain_timm_eager", _AMP)),
        )
    ),
)


def reached(rows: Sequence[SpeedRow], bars: Sequence[Bar]) -> list[Reached]:
    """What the rows give for each bar that has rows."""
    found = []
    for bar in bars:
        values = [value for row in rows if bar.takes(row) and (value := bar.value(row)) is not None]
        if values:
            found.append(Reached(bar, len(values), bar.reduce(values)))
    return found
