"""Rows of floors (the least times of kernels) and of launches, and the tables of kernels/README.md."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from benchmarks.evidence.rows import RESULTS
from benchmarks.floors.devices import DEVICES, LAUNCH_SECONDS, Device

FLOORS, LAUNCHES = RESULTS / "floors" / "kernels.csv", RESULTS / "floors" / "launches.csv"
IMPLEMENTATIONS = {"seattn": "here", "timm_eager": "timm, eager", "timm_compile": "timm, `torch.compile`"}
SHOWN = "256x256x56x56"  # the shape of the table: the largest of ResNet-50 at 256 images


@dataclass(frozen=True)
class FloorRow:
    """The least time that one launch of a kernel can take on one device, and what its binary allows. Nothing is timed.

    Args:
        case, mode: the op, and forward (in training), backward or inference.
        launch: its place among the Triton launches of the op.
        tile: the sizes of the blocks that a program works on: C64 P32.
        programs: of the grid.
        registers: 32-bit registers of a thread in the compiled code.
        stack: bytes of a thread's stack; not 0 where registers spill.
        shared: bytes of shared memory of a program.
        resident: the programs that one multiprocessor runs at once.
        occupancy: their warps over the most that it can have.
        waves: programs over those that the device runs at once.
        bytes_moved: every tensor among the arguments once.
        cached: whether these bytes fit into the device's last cache; an earlier launch may then have left them there.
        memory_us: bytes_moved over the peak bandwidth, in microseconds: the floor, if all of them come from memory.
        launch_us: an assumption, the same for all rows: `LAUNCH_SECONDS`.
        triton: the version that compiled the kernel.
    """

    device: str
    case: str
    mode: str
    shape: str
    dtype: str
    memory_format: str
    launch: int
    kernel: str
    tile: str
    programs: int
    num_warps: int
    registers: int
    stack: int
    shared: int
    resident: int
    occupancy: float
    waves: float
    bytes_moved: int
    cached: bool
    memory_us: float
    launch_us: float
    triton: str


@dataclass(frozen=True)
class Limits:
    """The columns of a `FloorRow` that follow from the binary, the grid and the device."""

    resident: int
    occupancy: float
    waves: float
    cached: bool
    memory_us: float
    launch_us: float


def limits(device: Device, *, programs: int, num_warps: int, registers: int, shared: int, bytes_moved: int) -> Limits:
    """The limits of one launch.

    Raises:
        ValueError: if the device cannot run even one program.
    """
    resident = device.resident(num_warps, registers, shared)
    if resident == 0:
        raise ValueError(
            f"a program of {num_warps} warps, {registers} registers, {shared} bytes fits on no {device.name}"
        )
    return Limits(
        resident,
        round(resident * num_warps / device.warps, 3),
        _digits(programs / (resident * device.multiprocessors)),
        bytes_moved <= device.cache,
        _digits(bytes_moved / device.bandwidth * 1e6),
        LAUNCH_SECONDS * 1e6,
    )


def _digits(value: float) -> float:
    return float(f"{value:.4g}")


@dataclass(frozen=True)
class LaunchRow:
    """The launches of one residual block, counted; an operator of torch counts as one.

    Args:
        block: plain, se, eca or cbam: a basic block of ResNet-18 for CIFAR, with its two convolutions.
        mode: forward (in training), backward or inference.
        implementation: seattn, timm_eager or timm_compile.
        kernels: the Triton kernels, of ours or of inductor.
        operators: torch's operators, among them the convolutions.
    """

    block: str
    mode: str
    shape: str
    dtype: str
    implementation: str
    kernels: int
    operators: int
    torch: str
    triton: str


def render_floors(rows: Sequence[FloorRow]) -> str:
    """The floors of the ops on the shape `SHOWN`, and what limits the kernels over all shapes."""
    shown = [row for row in rows if row.shape == SHOWN]
    size = prod(int(side) for side in SHOWN.split("x")) * 2
    names = [device.name for device in DEVICES]
    lines = [
        f"Floors in µs, bf16, channels_last, {SHOWN.replace('x', ' × ')} (T = {size / 1e6:.0f} MB): memory + launches.",
        "",
        f"| op | launches | bytes | {' | '.join(names)} |",
        f"| --- | --- | --- |{' --- |' * len(names)}",
    ]
    for case, mode in dict.fromkeys((row.case, row.mode) for row in shown):
        cells: list[str] = []
        launches: list[FloorRow] = []
        for name in names:
            launches = [row for row in shown if (row.case, row.mode, row.device) == (case, mode, name)]
            memory, launch = sum(row.memory_us for row in launches), sum(row.launch_us for row in launches)
            cells.append(f"{memory:.0f} + {launch:.1f}")
        moved = sum(row.bytes_moved for row in launches) / size  # the same on every device
        lines.append(f"| `{case}`, {mode} | {len(launches)} | {moved:.2f} T | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_kernel_table(rows)]) + "\n"


def _kernel_table(rows: Sequence[FloorRow]) -> list[str]:
    """Registers and occupancy of each kernel, the least and the most over its rows."""
    devices = [device for device in DEVICES if device.name != "H200"]  # its multiprocessors are those of an H100
    lines = [
        "Registers a thread, and occupancy (warps at once over the most that fit): least to most of all rows.",
        "",
        f"| kernel | {' | '.join(f'{d.name}: registers | occupancy' for d in devices)} | spills |",
        f"| --- |{' --- | --- |' * len(devices)} --- |",
    ]
    for kernel in dict.fromkeys(row.kernel for row in rows):
        cells: list[str] = []
        for device in devices:
            own = [row for row in rows if (row.kernel, row.device) == (kernel, device.name)]
            registers, percent = [row.registers for row in own], [round(100 * row.occupancy) for row in own]
            cells += [_span(registers), f"{_span(percent)} %"]
        spills = sorted({row.device for row in rows if row.kernel == kernel and row.stack})
        lines.append(f"| `{kernel}` | {' | '.join(cells)} | {', '.join(spills) or 'none'} |")
    return lines


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def render_launches(rows: Sequence[LaunchRow]) -> str:
    """The launches of each block in each mode."""
    lines = [
        f"| block, with 2 convolutions | {' | '.join(IMPLEMENTATIONS.values())} |",
        f"| --- |{' --- |' * len(IMPLEMENTATIONS)}",
    ]
    for block, mode in dict.fromkeys((row.block, row.mode) for row in rows):
        counts = {row.implementation: row for row in rows if (row.block, row.mode) == (block, mode)}
        cells = [
            f"{counts[name].kernels + counts[name].operators} ({counts[name].kernels} + {counts[name].operators})"
            for name in IMPLEMENTATIONS
        ]
        lines.append(f"| {block}, {mode} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
