"""The bars: numbers that the rows of a run must reach, each with its least value."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import geometric_mean

from benchmarks.speed.rows import OURS, SpeedRow

LARGE = 64_000_000  # bytes of an input on which the time of a launch is negligible


@dataclass(frozen=True)
class Bar:
    """The least value of one number over some rows.

    Args:
        takes: whether the number is computed from this row.
        reduce: makes one number from the ratios of the rows, or from their percentages of the copy bandwidth.
        of_copy: use the percentages.
    """

    text: str
    least: float
    takes: Callable[[SpeedRow], bool]
    reduce: Callable[[Sequence[float]], float] = geometric_mean
    of_copy: bool = False

    @property
    def unit(self) -> str:
        return " %" if self.of_copy else " ×"

    def value(self, row: SpeedRow) -> float | None:
        return row.copy_percent if self.of_copy else row.ratio


@dataclass(frozen=True)
class Reached:
    """The value of a bar's number over n rows."""

    bar: Bar
    n: int
    value: float

    @property
    def holds(self) -> bool:
        return self.value >= self.bar.least


def _tail_cpu(memory_format: str, implementation: str) -> Callable[[SpeedRow], bool]:
    columns = ("se_tail", "forward_backward", implementation, "float32", memory_format, False)
    return lambda row: _columns(row) == columns


def _net(net: tuple[str, int], mode: str, implementation: str, dtype: str) -> Callable[[SpeedRow], bool]:
    """Rows of a net with that many images, in channels_last."""
    name, images = net
    columns = (name, mode, implementation, dtype, "channels_last", False)
    return lambda row: _columns(row) == columns and row.shape.startswith(f"{images}x")


def _tail_gpu(case: str, mode: str, implementation: str) -> Callable[[SpeedRow], bool]:
    """Rows in CUDA graphs; those of our ops with large inputs only."""
    columns = (case, mode, implementation, "bfloat16", "channels_last", True)
    return lambda row: _columns(row) == columns and (implementation != OURS or row.input_bytes >= LARGE)


def _step(net: str, implementation: str, dtype: str) -> Callable[[SpeedRow], bool]:
    """Rows of both layouts, outside of CUDA graphs."""
    return lambda row: _columns(row) == (net, "training_step", implementation, dtype, row.memory_format, False)


def _columns(row: SpeedRow) -> tuple[str, str, str, str, str, bool]:
    return row.case, row.mode, row.implementation, row.dtype, row.memory_format, row.cuda_graph


_SE = "SE tail, forward, "
_BN = "BN + SE tail, "
_STEP = "forward_backward"
_FP32, _AMP = "float32", "autocast_bfloat16"
_TIMM, _COMPILED = "timm_eager", "timm_compile"
_SMALL, _LARGE_NET = ("se_resnet20_cifar", 128), ("se_resnet18_cifar", 32)
_SE_TAIL = "SE tail, forward + backward, fp32 "
CPU_BARS = (
    Bar(_SE_TAIL + "channels_last: geometric mean over timm", 1.85, _tail_cpu("channels_last", _TIMM)),
    Bar(_SE_TAIL + "NCHW: geometric mean over timm", 1.3, _tail_cpu("contiguous", _TIMM)),
    Bar("the slowest of those shapes, channels_last", 1.0, _tail_cpu("channels_last", _TIMM), min),
    Bar("the slowest of those shapes, NCHW", 1.0, _tail_cpu("contiguous", _TIMM), min),
    Bar(_SE_TAIL + "channels_last: over timm compiled", 1.4, _tail_cpu("channels_last", _COMPILED)),
    Bar("the slowest of those shapes over timm compiled", 1.1, _tail_cpu("channels_last", _COMPILED), min),
    *(
        Bar(f"{net[0]}, {net[1]} image{'s' * (net[1] > 1)}, {text}", least, _net(net, mode, against, dtype))
        for net, text, least, mode, against, dtype in (
            (_SMALL, "inference folded, over timm compiled", 1.05, "inference_folded", _COMPILED, _FP32),
            (_LARGE_NET, "inference folded, over timm compiled", 1.0, "inference_folded", _COMPILED, _FP32),
            (_LARGE_NET, "inference folded, over timm", 1.15, "inference_folded", _TIMM, _FP32),
            (("se_resnet20_cifar", 1), "inference folded, over timm", 1.3, "inference_folded", _TIMM, _FP32),
            (("seresnet50", 8), "inference folded, over timm", 1.15, "inference_folded", _TIMM, _FP32),
            (("efficientnet_b0", 8), "inference folded, over timm", 1.15, "inference_folded", _TIMM, _FP32),
            (_SMALL, "training step, over timm compiled", 1.0, "training_step", _COMPILED, _FP32),
            (_LARGE_NET, "training step, over timm compiled", 1.0, "training_step", _COMPILED, _FP32),
            (_SMALL, "inference under bf16 autocast, over timm", 1.05, "inference", _TIMM, _AMP),
            (_LARGE_NET, "inference under bf16 autocast, over timm", 1.05, "inference", _TIMM, _AMP),
            (_SMALL, "SE's cost: the plain net's training step", 1 / 1.05, "training_step_parts", "plain", _FP32),
            (_LARGE_NET, "SE's cost: the plain net's training step", 1 / 1.03, "training_step_parts", "plain", _FP32),
        )
    ),
    *(
        Bar(f"{net[0]}, {net[1]} images, {mode}, {dtype}, both compiled", least, _net(net, mode, _COMPILED, dtype))
        for net in (_SMALL, _LARGE_NET)
        for mode in ("training_step_compiled", "inference_compiled")
        for dtype, least in ((_FP32, 1.02), (_AMP, 1.0))
    ),
)
GPU_BARS = (
    Bar(_SE + "T ≥ 64 MB: of the copy bandwidth", 85, _tail_gpu("se_tail", "forward", OURS), min, True),
    Bar(_BN + "training, T ≥ 64 MB: of the copy bandwidth", 75, _tail_gpu("bn_se_tail", _STEP, OURS), min, True),
    Bar(_SE + "over torch.compile", 1.3, _tail_gpu("se_tail", "forward", "timm_compile")),
    Bar(_BN + "forward + backward, over torch.compile", 1.2, _tail_gpu("bn_se_tail", _STEP, "timm_compile")),
    Bar(_SE + "over eager", 2.3, _tail_gpu("se_tail", "forward", "timm_eager")),
    Bar(_BN + "forward + backward, over eager", 2.3, _tail_gpu("bn_se_tail", _STEP, "timm_eager")),
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
    """The value of each bar that has rows."""
    values = {bar: [value for row in rows if bar.takes(row) and (value := bar.value(row)) is not None] for bar in bars}
    return [Reached(bar, len(numbers), bar.reduce(numbers)) for bar, numbers in values.items() if numbers]
