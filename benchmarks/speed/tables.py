"""Rows of speed as tables: for the terminal, and in Markdown for the README.

What a training step of a net with attention is made of: the nets timed beside it, as a table in Markdown.
"""

from collections.abc import Callable, Sequence
from statistics import geometric_mean

from rich.table import Table

from benchmarks.speed.bars import Reached
from benchmarks.speed.rows import OURS, SpeedRow, newest

DTYPES = {"float32": "fp32", "bfloat16": "bf16", "autocast_bfloat16": "bf16 autocast"}
LAYOUTS = {"channels_last": "channels_last", "contiguous": "NCHW"}
_CASES = {
    "se_tail": "SE + add + ReLU",
    "bn_se_tail": "batch norm + SE + add + ReLU",
    "se": "SE",
    "eca_tail": "ECA + add + ReLU",
    "bn_eca_tail": "batch norm + ECA + add + ReLU",
    "plain_tail": "batch norm + add + ReLU",
    "cbam_channel": "CBAM's channel gate",
    "cbam_spatial": "CBAM's spatial gate",
    "se_basic": "basic block with SE",
    "basic": "basic block",
    "se_bottleneck": "bottleneck with SE",
    "bottleneck": "bottleneck",
}
_MODES = {
    "forward": "forward",
    "forward_backward": "forward + backward",
    "training_step": "training step",
    "training_step_parts": "training step, beside its parts",
    "inference": "inference",
}
Line = tuple[str, str, str, str]  # case, mode, dtype, images of a net's batch


def _hardware(row: SpeedRow, on_gpu: bool) -> str:
    where = row.conditions
    return where.hardware if on_gpu else where.machine


def group_line(rows: Sequence[SpeedRow]) -> str:
    """One group in a line: seattn's time, and how many times longer the others took."""
    (ours,) = (row for row in rows if row.implementation == OURS)
    others = ", ".join(f"{row.implementation} {row.ratio:.2f} ×" for row in rows if row is not ours)
    percent = "" if ours.copy_percent is None else f" ({ours.copy_percent:.0f} % of copy)"
    graph = ", CUDA graph" if ours.cuda_graph else ""
    layout = LAYOUTS[ours.memory_format]
    return (
        f"{ours.case} {ours.mode} {ours.shape} {ours.dtype} {layout}{graph}: "
        f"{1e3 * ours.median:.3g} ms{percent}; {others}"
    )


def summary_table(rows: Sequence[SpeedRow]) -> Table:
    """For the terminal: a line a case, with the geometric mean over its shapes and the least and greatest of them."""
    table = Table(title="times of timm's over seattn's: geometric mean over the shapes (least to greatest)")
    for heading in ("case", "mode", "dtype", "layout", "against", "shapes", "ratio"):
        table.add_column(heading, justify="right" if heading in ("shapes", "ratio") else "left")
    keys = dict.fromkeys(
        (r.case, r.mode, r.dtype, r.memory_format, r.implementation + (" (CUDA graphs)" if r.cuda_graph else ""))
        for r in rows
        if r.implementation != OURS
    )
    for key in keys:
        case, mode, dtype, memory_format, against = key
        ratios = [
            r.ratio
            for r in rows
            if (r.case, r.mode, r.dtype, r.memory_format) == key[:4]
            and r.implementation + (" (CUDA graphs)" if r.cuda_graph else "") == against
        ]
        table.add_row(case, mode, DTYPES[dtype], LAYOUTS[memory_format], against, str(len(ratios)), _range(ratios))
    return table


def bars_table(found: Sequence[Reached]) -> Table:
    """For the terminal: every bar that has rows, and whether they reach it."""
    table = Table(title="bars")
    for heading in ("bar", "rows", "wanted", "measured", ""):
        table.add_column(heading, justify="left" if heading == "bar" else "right")
    for each in found:
        unit = each.bar.unit
        table.add_row(
            each.bar.text,
            str(each.n),
            f"≥ {each.bar.least:g}{unit}",
            f"{each.value:.2f}{unit}",
            "holds" if each.holds else "MISSED",
        )
    return table


def render_speed(rows: Sequence[SpeedRow], *, on_gpu: bool, headlines: bool) -> str:
    """Markdown: a table of the newest rows of one device, and what they hold under; empty where there are none.

    Args:
        headlines: the README's choice: training of SE's tails and CBAM's gates, and nets with SE in fp32.
    """
    rows = [row for row in newest(rows) if not headlines or _is_headline(row, on_gpu)]
    if not rows:
        return ""
    columns = _gpu_columns() if on_gpu else _cpu_columns()
    shown = sorted((r for r in rows if _shown(r, on_gpu)), key=_order)
    lines = dict.fromkeys(map(_line, shown))
    where = rows[-1].conditions
    days = dict.fromkeys(r.conditions.date for r in shown)
    commits = ", ".join(
        f"{', '.join(dict.fromkeys(f'`{r.conditions.commit}`' for r in shown if r.conditions.date == day))} of {day}"
        for day in days
    )
    text = [
        f"| {_hardware(rows[-1], on_gpu)} | dtype | {' | '.join(columns)} |",
        "| --- | --- |" + " --- |" * len(columns),
    ]
    for line in lines:
        case, mode, dtype, images = line
        of_line = [r for r in rows if _line(r) == line]
        cells = [cell(of_line) for cell in columns.values()]
        name = _CASES.get(case) or f"`{case}`, {images} image{'s' * (images != '1')}"
        text.append(f"| {name}, {_MODES[mode]} | {DTYPES[dtype]} | {' | '.join(cells)} |")
    text.append("")
    text.append(
        f"torch {where.torch}, timm {where.timm}, {'triton ' + where.triton + ', ' if on_gpu else ''}"
        f"seattn at {commits}."
    )
    return "\n".join(text) + "\n"


def _line(row: SpeedRow) -> Line:
    return row.case, row.mode, row.dtype, row.shape.split("x")[0] if row.what == "model" else ""


def _order(row: SpeedRow) -> tuple[int, str, str, int]:
    place = ("op", "block", "model").index(row.what)
    if row.what != "model":
        return place, "", "", 0
    return place, row.case, _MODES[row.mode], -int(row.shape.split("x")[0])


def _is_headline(row: SpeedRow, on_gpu: bool) -> bool:
    if row.what == "op":
        return row.mode == "forward_backward" and row.case in ("se_tail", "bn_se_tail", "cbam_channel", "cbam_spatial")
    if row.what == "block" or (row.dtype == "autocast_bfloat16" and not on_gpu):
        return False
    return row.case.startswith("se_") or row.case in ("seresnet50", "efficientnet_b0")


def _shown(row: SpeedRow, on_gpu: bool) -> bool:
    if row.what == "op":
        bar = (row.case, row.mode) == ("se_tail", "forward")
        return row.dtype == ("bfloat16" if on_gpu else "float32") and (bar or row.mode == "forward_backward")
    return row.mode in ("forward_backward", "training_step") or (row.mode == "inference" and row.what == "model")


Cell = Callable[[Sequence[SpeedRow]], str]


def _cpu_columns() -> dict[str, Cell]:
    return {
        "timm's time over ours, channels_last": _ratio_cell("timm_eager", "channels_last", graph=False),
        "NCHW": _ratio_cell("timm_eager", "contiguous", graph=False),
    }


def _gpu_columns() -> dict[str, Cell]:
    return {
        "timm's time over ours, eager": _ratio_cell("timm_eager", "channels_last", graph=False),
        "in CUDA graphs": _ratio_cell("timm_eager", "channels_last", graph=True),
        "`torch.compile`": _ratio_cell("timm_compile", "channels_last", graph=False),
        "% of the copy bandwidth": _percent_cell,
    }


def _ratio_cell(implementation: str, memory_format: str, *, graph: bool) -> Cell:
    def cell(rows: Sequence[SpeedRow]) -> str:
        wanted = (implementation, memory_format, graph)
        taken = [r for r in rows if (r.implementation, r.memory_format, r.cuda_graph) == wanted]
        if len(taken) == 1:  # one shape: the spread over the rounds
            return f"{taken[0].ratio:.2f} × ({taken[0].ratio_p20:.2f} to {taken[0].ratio_p80:.2f})"
        return _range([row.ratio for row in taken])

    return cell


def _percent_cell(rows: Sequence[SpeedRow]) -> str:
    graphs = any(row.cuda_graph for row in rows)
    wanted = (OURS, "channels_last", graphs)
    percents = [
        row.copy_percent
        for row in rows
        if (row.implementation, row.memory_format, row.cuda_graph) == wanted and row.copy_percent is not None
    ]
    return f"{min(percents):.0f} to {max(percents):.0f}" if percents else ""


def _range(ratios: Sequence[float]) -> str:
    if not ratios:
        return ""
    return f"{geometric_mean(ratios):.2f} × ({min(ratios):.2f} to {max(ratios):.2f})"


_COLUMNS = {
    "timm_eager": "timm's",
    "plain": "no attention, our tails",
    "plain_timm_eager": "no attention, timm's",
    "convolutions": "convolutions alone",
}


def render_steps(rows: Sequence[SpeedRow]) -> str:
    """A line for each net, dtype and layout whose plain net was timed beside it; empty where none was."""
    steps = [row for row in newest(rows) if row.mode.startswith("training_step") and not row.cuda_graph]
    groups = dict.fromkeys(row.group for row in steps if row.implementation == "plain")
    if not groups:
        return ""
    text = [
        f"| training step, {steps[-1].conditions.machine} | dtype | layout | {' | '.join(_COLUMNS.values())} |",
        "| --- | --- | --- |" + " --- |" * len(_COLUMNS),
    ]
    for group in groups:
        (ours,) = (row for row in steps if row.group == group and row.implementation == OURS)
        times = {row.implementation: f"{row.ratio:.2f}" for row in steps if row.group == group}
        images = ours.shape.split("x")[0]
        facts = (f"`{ours.case}`, {images} images", DTYPES[ours.dtype], LAYOUTS[ours.memory_format])
        text.append(f"| {' | '.join([*facts, *(times.get(name, '') for name in _COLUMNS)])} |")
    return "\n".join(text) + "\n"
