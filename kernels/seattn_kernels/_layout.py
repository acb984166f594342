"""The layout of a map in memory, the tiles of a map that programs work on, and the plan by which an operator runs.

Tiles and limits are tables; nothing is timed at run time. The plan depends on sizes alone:
    "sample"  one program a sample reads a map twice, the second time from cache (`_sample.py`)
    "passes"  a kernel for each pass over a map, and small kernels between them (`_passes.py`); for every map
Shapes: N images, C channels, P = H*W pixels. A map is dense, NCHW or channels_last.
"""

# ruff: noqa: N803  upper case marks sizes and compile-time constants, as Triton's own kernels do
# mypy: disable-error-code="no-untyped-def,untyped-decorator,import-untyped"
# (a kernel's arguments are Triton values, for which there are no types)

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from seattn_kernels.arguments import Norm


class Tile(NamedTuple):
    """One program's tile: channels x pixels of a map, or rows x columns of a matrix."""

    rows: int
    cols: int
    num_warps: int
    registers: int | None = None  # the most for one thread, on NVIDIA; None: the assembler chooses


class Row(NamedTuple):
    """A tile and the largest map it is for; None is no limit."""

    channels: int | None
    pixels: int | None
    tile: Tile


class Layout(NamedTuple):
    """The sizes and the memory format of a map."""

    images: int
    channels: int
    pixels: int
    channels_last: bool


# The first row whose limits hold is taken. A tile is longest along the dimension that is contiguous in memory. Nearly
# all have 8 or 16 elements a thread, for accesses of 128 bit in every dtype. They spill no register; not tuned.
PASS_TILES: dict[bool, tuple[Row, ...]] = {  # by channels_last
    False: (
        Row(None, 64, Tile(32, 64, 4)),
        Row(None, 256, Tile(8, 256, 4)),
        Row(None, None, Tile(2, 1024, 4)),
    ),
    True: (
        Row(16, None, Tile(16, 128, 4)),
        Row(32, None, Tile(32, 64, 4)),
        Row(None, None, Tile(64, 32, 4)),
    ),
}
# One program a sample needs more warps to keep enough bytes in flight; small maps take 8, so that more fit on an SM.
# Without a limit the assembler aims at more programs on a multiprocessor and spills one or two registers. With 16 warps
# and 64 registers two programs fit on a multiprocessor, as `plan_for` assumes, and a thread can hold 8 elements.
# The tiles for the smallest maps have 64 channels: a 64 x 64 block of the gate's matrix is then 32 registers a thread.
SAMPLE_TILES: dict[bool, tuple[Row, ...]] = {
    False: (
        Row(None, 16, Tile(64, 16, 4, 168)),
        Row(None, 64, Tile(64, 64, 8, 128)),
        Row(None, 256, Tile(16, 256, 16, 64)),
        Row(None, None, Tile(4, 1024, 16, 64)),
    ),
    True: (
        Row(16, None, Tile(16, 256, 8, 128)),
        Row(32, None, Tile(32, 128, 8, 128)),
        Row(None, 16, Tile(64, 16, 4, 168)),
        Row(None, 64, Tile(64, 64, 8, 128)),
        Row(None, None, Tile(32, 128, 16, 64)),
    ),
}


def tile_for(tables: dict[bool, tuple[Row, ...]], layout: Layout) -> Tile:
    """The first row of the layout's table whose limits hold."""
    for row in tables[layout.channels_last]:
        if (row.channels is None or layout.channels <= row.channels) and (
            row.pixels is None or layout.pixels <= row.pixels
        ):
            return row.tile
    raise AssertionError("the last row of a table has no limits")


def layout_of(x: Tensor) -> Layout:
    """Layout of a dense map.

    Raises:
        ValueError: if x is neither NCHW nor channels_last.
    """
    images, channels, height, width = x.shape
    channels_last = not x.is_contiguous()
    if channels_last and not x.is_contiguous(memory_format=torch.channels_last):
        raise ValueError(f"a map must be dense, NCHW or channels_last; got {describe(x)}")
    return Layout(images, channels, height * width, channels_last)


def check_same(x: Tensor, **maps: Tensor | None) -> None:
    """Raise ValueError where a map differs from x in shape, dtype, device or layout, whose offsets kernels use."""
    layout = layout_of(x)
    for name, t in maps.items():
        if t is None:
            continue
        if t.shape != x.shape or t.dtype != x.dtype or t.device != x.device or layout_of(t) != layout:
            raise ValueError(f"{name} must have the shape, dtype and layout of x, {describe(x)}; got {describe(t)}")


def describe(x: Tensor) -> str:
    return f"{x.dtype} {tuple(x.shape)} with strides {x.stride()} on {x.device}"


def launch_options(num_warps: int, registers: int | None = None) -> dict[str, Any]:
    # Contraction to FMA is set here, because its default differs between Triton versions.
    options: dict[str, Any] = {"num_warps": num_warps, "enable_fp_fusion": True}
    if registers is not None and torch.version.hip is None:  # AMD's compiler has no such option
        options["maxnreg"] = registers
    return options


def map_args(layout: Layout, tile: Tile) -> dict[str, Any]:
    """The arguments that every kernel over a map takes."""
    return {
        "C": layout.channels,
        "P": layout.pixels,
        "CHANNELS_LAST": layout.channels_last,
        "BLOCK_C": tile.rows,
        "BLOCK_P": tile.cols,
        **launch_options(tile.num_warps, tile.registers),
    }


def norm_args(norm: Norm) -> dict[str, Any]:
    """The arguments that every kernel with a norm takes: None for each pointer where there is no norm."""
    if norm.kind == "none":
        return {"weight_ptr": None, "bias_ptr": None, "mean_ptr": None, "var_ptr": None, "eps": 0.0}
    return {
        "weight_ptr": norm.weight,
        "bias_ptr": norm.bias,
        "mean_ptr": norm.mean,
        "var_ptr": norm.var,
        "eps": norm.eps,
    }


@triton.jit
def offsets_in_image(c, p, C, P, CHANNELS_LAST: tl.constexpr):
    """(BLOCK_C, BLOCK_P) offsets within one image. int32: the caller ensures that C*P is below 2^31."""
    return c[:, None] + p[None, :] * C if CHANNELS_LAST else c[:, None] * P + p[None, :]


class SampleLimits(NamedTuple):
    """The limits of the plan "sample"; everything beyond them goes to "passes"."""

    images: int  # at least: with fewer programs, too few of the GPU's multiprocessors work
    channels: int  # at most: one program computes the gate of all channels
    hidden: int  # at most: one block in registers
    sample_bytes: int  # at most, of one image: the images that are worked on at a time stay in L2 together


# For an H200: 132 multiprocessors, two programs of 16 warps on each, 40 of the 60 MB of L2 (the maps that stream past
# take the remaining 20). 96 images leave a quarter of the multiprocessors idle, but save three launches. Computed, not
# tuned on a GPU.
SAMPLE_LIMITS = SampleLimits(images=96, channels=512, hidden=64, sample_bytes=40_000_000 // (2 * 132))


def plan_for(layout: Layout, itemsize: int, hidden: int, kind: str, norm: str, backward: bool) -> str:
    """The plan, "sample" or "passes"."""
    limits = SAMPLE_LIMITS
    # The batch's own statistics need all samples before the first is gated; a frozen norm has gradients over the batch.
    norm_fits = norm == "none" or (norm == "frozen" and not backward)
    fits = (
        kind == "se"
        and norm_fits
        and layout.images >= limits.images
        and layout.channels <= limits.channels
        and hidden <= limits.hidden
        and layout.channels * layout.pixels * itemsize <= limits.sample_bytes
    )
    return "sample" if fits else "passes"
