"""What is compiled ahead of time: every kernel, the rows of the table it takes its tile from, and its variants."""

from typing import Any, NamedTuple

from seattn_kernels import _batch_norm, _conv, _linear, _passes, _sample, cbam_channel, cbam_spatial, channel_gate
from seattn_kernels._layout import PASS_TILES, SAMPLE_LIMITS, SAMPLE_TILES


class Row(NamedTuple):
    """What a row of a table sets: its name, the constants, the warps, the bound on registers."""

    name: str
    constants: dict[str, Any]
    num_warps: int
    registers: int | None = None


class Entry(NamedTuple):
    """One kernel: its rows, which arguments are whole maps, its variants by name: constants, None for no pointer."""

    kernel: Any
    rows: list[Row]
    maps: tuple[str, ...]
    variants: dict[str, dict[str, Any]]


def map_rows(tables: Any) -> list[Row]:
    found = []
    for channels_last, table in tables.items():
        for i, row in enumerate(table):
            name = f"{'channels_last' if channels_last else 'nchw'}-{i}"
            constants = {"CHANNELS_LAST": channels_last, "BLOCK_C": row.tile.rows, "BLOCK_P": row.tile.cols}
            found.append(Row(name, constants, row.tile.num_warps, row.tile.registers))
    return found


PASSES, SAMPLES = map_rows(PASS_TILES), map_rows(SAMPLE_TILES)
CHANNEL_LOOPS = map_rows(cbam_spatial.CHANNEL_LOOP_TILES)
LINEAR_TILES = [tile for _, tile in _linear.LINEAR_TILES]


def linear_row(tile: _linear.LinearTile, **blocks: int) -> Row:
    return Row(f"{tile.outputs}", {"BLOCK_N": tile.images, **blocks}, tile.num_warps)


LINEARS = [linear_row(tile, BLOCK_M=tile.outputs, BLOCK_K=tile.inputs) for tile in LINEAR_TILES]
CONVS, IMAGES = (
    [Row("0", {"BLOCK_N": tile.rows, "BLOCK_C": tile.cols}, tile.num_warps)]
    for tile in (_conv.CONV_TILE, _batch_norm.OVER_IMAGES_TILE)
)
NO_NORM = {"weight_ptr": None, "bias_ptr": None, "mean_ptr": None, "var_ptr": None}
GELU = {"ACT": "gelu", "GATE": "sigmoid"}  # the dearest activation
BLOCKS_R = {f"R{r}": {"BLOCK_R": r} for r in (16, _sample.hidden_block(SAMPLE_LIMITS.hidden))}
LINEAR = {"TRANSPOSED": False, "IN_ACT": "", "OUT_GATE": "", "OUT_ACT_GRAD": "", "hidden_ptr": None, "act_ptr": None}

# A new kernel is one entry here. The first variant is the one with most in it.
ENTRIES = [
    Entry(_passes.moments_kernel, PASSES, ("x_ptr",), {"moments": {}, "mean": {"m2_ptr": None}}),
    Entry(
        _passes.apply_kernel,
        PASSES,
        ("x_ptr", "shortcut_ptr", "y_ptr"),
        {
            "bn-tail": {"OUT_ACT": "relu"},
            "tail": {"OUT_ACT": "relu", **NO_NORM},
            "plain-bn-tail": {"OUT_ACT": "relu", "scale_ptr": None},
            "gate": {"OUT_ACT": "identity", "shortcut_ptr": None, **NO_NORM},
        },
    ),
    Entry(
        _passes.reduce_kernel,
        PASSES,
        ("dy_ptr", "y_ptr", "x_ptr", "g_ptr"),
        {
            "bn-tail": {"GATE": "sigmoid"},
            "tail": {"GATE": "sigmoid", "s1_ptr": None, "s2_ptr": None, **NO_NORM},
            "plain-bn-tail": {"GATE": "", "scale_ptr": None, "dz_ptr": None},
            "gate": {"GATE": "sigmoid", "y_ptr": None, "g_ptr": None, "s1_ptr": None, "s2_ptr": None, **NO_NORM},
        },
    ),
    Entry(
        _passes.apply_grad_kernel,
        PASSES,
        ("g_ptr", "x_ptr", "dx_ptr"),
        {
            "bn-tail": {},
            "plain-bn-tail": {"scale_ptr": None, "dp_ptr": None},
            "frozen": {"x_ptr": None, "dweight_ptr": None, "dbias_ptr": None},
            "gate": {
                "x_ptr": None,
                **dict.fromkeys(("weight_ptr", "mean_ptr", "var_ptr", "dweight_ptr", "dbias_ptr")),
            },
        },
    ),
    Entry(
        _sample.sample_fwd_kernel,
        SAMPLES,
        ("x_ptr", "shortcut_ptr", "y_ptr"),
        {
            f"{name}-{r}": {**GELU, **block, **const}
            for r, block in reversed(BLOCKS_R.items())
            for name, const in {
                "frozen": {"OUT_ACT": "relu"},
                "tail": {"OUT_ACT": "relu", **NO_NORM},
                "gate": {"OUT_ACT": "identity", "shortcut_ptr": None, **NO_NORM},
            }.items()
        },
    ),
    Entry(
        _sample.sample_bwd_kernel,
        SAMPLES,
        ("dy_ptr", "y_ptr", "x_ptr", "g_ptr", "dx_ptr"),
        {
            f"{name}-{r}": {**GELU, **block, **const}
            for r, block in reversed(BLOCKS_R.items())
            for name, const in {"tail": {}, "gate": {"y_ptr": None, "g_ptr": None}}.items()
        },
    ),
    Entry(
        _linear.linear_kernel,
        LINEARS,
        (),
        {
            "hidden": LINEAR,
            "scale": {**LINEAR, "IN_ACT": "gelu", "OUT_GATE": "sigmoid", **NO_NORM},
            "hidden_grad": {
                **{k: v for k, v in LINEAR.items() if v is not None},
                **{"TRANSPOSED": True, "OUT_ACT_GRAD": "gelu", "b_ptr": None},
                **NO_NORM,
            },
            "squeeze_grad": {**LINEAR, "TRANSPOSED": True, "b_ptr": None, **NO_NORM},
        },
    ),
    Entry(
        _conv.conv_kernel,
        CONVS,
        (),
        {
            "scale": {"TRANSPOSED": False, "OUT_GATE": "sigmoid"},
            "squeeze_grad": {"TRANSPOSED": True, "OUT_GATE": "", **NO_NORM},
        },
    ),
    Entry(_conv.conv_weight_grad_kernel, CONVS, (), {"taps": {}}),
    Entry(_batch_norm.statistics_kernel, IMAGES, (), {"statistics": {}}),
    Entry(
        _batch_norm.affine_grad_kernel,
        IMAGES,
        (),
        {"gated": {}, "plain": dict.fromkeys(("scale_ptr", "dp_ptr", "squeeze_ptr", "p_ptr"))},
    ),
    Entry(channel_gate.channel_gate_kernel, PASSES, ("x_ptr", "y_ptr"), {"gate": {"GATE": "sigmoid"}}),
    Entry(channel_gate.channel_gate_grad_kernel, PASSES, ("dy_ptr", "x_ptr", "dx_ptr"), {"gate": {"GATE": "sigmoid"}}),
    Entry(cbam_channel.pool_pixels_kernel, PASSES, ("x_ptr",), {"pool": {}}),
    Entry(cbam_channel.reduce_pixels_kernel, PASSES, ("dy_ptr", "x_ptr"), {"gate": {"GATE": "sigmoid"}}),
    Entry(cbam_channel.pooled_gate_grad_kernel, PASSES, ("dy_ptr", "x_ptr", "dx_ptr"), {"gate": {}}),
    Entry(
        cbam_channel.pair_logits_kernel,
        [linear_row(tile, BLOCK_C=tile.outputs, BLOCK_R=tile.inputs) for tile in LINEAR_TILES],
        (),
        {"bias": {"ACT": "gelu"}, "no-bias": {"ACT": "gelu", "b2_ptr": None}},
    ),
    Entry(
        cbam_channel.pair_hidden_grad_kernel,
        [linear_row(tile, BLOCK_R=tile.outputs, BLOCK_C=tile.inputs) for tile in LINEAR_TILES],
        (),
        {"hidden": {"ACT": "gelu"}},
    ),
    Entry(cbam_spatial.pool_channels_kernel, CHANNEL_LOOPS, ("x_ptr",), {"pool": {"MAX_FIRST": True}}),
    Entry(
        cbam_spatial.pixel_gate_kernel,
        PASSES,
        ("x_ptr", "y_ptr"),
        {"norm": {"GATE": "sigmoid"}, "plain": {"GATE": "sigmoid", **NO_NORM}},
    ),
    Entry(
        cbam_spatial.reduce_channels_kernel,
        CHANNEL_LOOPS,
        ("dy_ptr", "x_ptr"),
        {"gate": {"GATE": "sigmoid", "MAX_FIRST": True}},
    ),
    Entry(cbam_spatial.pixel_gate_grad_kernel, PASSES, ("dy_ptr", "x_ptr", "dx_ptr"), {"gate": {"MAX_FIRST": True}}),
]
