"""Rows of speed as tables: for the terminal, and in Markdown for the README and benchmarks/results."""

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
    "forward_compiled": "forward, ours under `torch.compile`",
    "forward_backward": "forward + backward",
    "forward_backward_compiled": "forward + backward, ours under `torch.compile`",
    "training_step": "training step",
    "training_step_parts": "training step, beside its parts",
    "training_step_compiled": "training step, ours under `torch.compile`",
    "inference": "inference",
    "inference_folded": "inference, folded",
    "inference_compiled": "inference, ours under `torch.compile`",
}
_STEP_COLUMNS = {
    "timm_eager": "timm's",
    "plain": "no attention, our tails",
    "plain_timm_eager": "no attention, timm's",
    "convolutions": "convolutions alone",
}
Line = tuple[str, str, str, str]  # case, mode, dtype, images of a net's batch
Cell = Callable[[Sequence[SpeedRow]], str]


def group_line(rows: Sequence[SpeedRow]) -> str:
    """One group in a line: seattn's time, and how many times longer the other implementations took."""
    (ours,) = (row for row in rows if row.implementation == OURS)
    others = ", ".join(f"{row.implementation} {row.ratio:.2f} ×" for row in rows if row is not ours)
    percent = "" if ours.copy_percent is None else f" ({ours.copy_percent:.0f} % of copy)"
    graph = ", CUDA graph" if ours.cuda_graph else ""
    case = f"{ours.case} {ours.mode} {ours.shape} {ours.dtype} {LAYOUTS[ours.memory_format]}{graph}"
    return f"{case}: {1e3 * ours.median:.3g} ms{percent}; {others}"


def summary_table(rows: Sequence[SpeedRow]) -> Table:
    """For the terminal: for each case the geometric mean over its shapes, and the least and the greatest ratio."""
    table = Table(title="times of timm's over seattn's: geometric mean over the shapes (least to greatest)")
    for heading in ("case", "mode", "dtype", "layout", "against", "shapes", "ratio"):
        table.add_column(heading, justify="right" if heading in ("shapes", "ratio") else "left")
    groups: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        if row.implementation != OURS:
            against = row.implementation + (" (CUDA graphs)" if row.cuda_graph else "")
            key = (row.case, row.mode, DTYPES[row.dtype], LAYOUTS[row.memory_format], against)
            groups.setdefault(key, []).append(row.ratio)
    for cells, ratios in groups.items():
        table.add_row(*cells, str(len(ratios)), _range(ratios))
    return table


def bars_table(bars: Sequence[Reached]) -> Table:
    """For the terminal: every bar that has rows, and whether they reach it."""
    table = Table(title="bars")
    for heading in ("bar", "rows", "wanted", "measured", ""):
        table.add_column(heading, justify="left" if heading == "bar" else "right")
    for reached in bars:
        bar = reached.bar
        measured = f"{reached.value:.2f}{bar.unit}"
        verdict = "holds" if reached.holds else "MISSED"
        table.add_row(bar.text, str(reached.n), f"≥ {bar.least:.3g}{bar.unit}", measured, verdict)
    return table


def render_speed(rows: Sequence[SpeedRow], *, on_gpu: bool, headlines: bool) -> str:
    """Markdown: a table of the newest rows of one device, and their conditions; empty where there are no rows.

    Args:
        headlines: the README's choice: training of SE's tails and CBAM's gates; of nets with SE their training step
            and inference, on a CPU in fp32 and outside of torch.compile, with one image only folded.
    """
    rows = [row for row in newest(rows) if not headlines or _is_headline(row, on_gpu)]
    if not rows:
        return ""
    columns = _GPU_COLUMNS if on_gpu else _CPU_COLUMNS
    shown = sorted((row for row in rows if _is_shown(row, on_gpu)), key=_order)
    lines: dict[Line, list[SpeedRow]] = {_line(row): [] for row in shown}
    for row in rows:
        lines.setdefault(_line(row), []).append(row)
    commits: dict[str, dict[str, None]] = {}  # by date; a dict keeps the order
    for row in shown:
        commits.setdefault(row.conditions.date, {})[f"`{row.conditions.commit}`"] = None
    where = rows[-1].conditions
    text = [
        f"| {where.hardware if on_gpu else where.machine} | dtype | {' | '.join(columns)} |",
        "| --- | --- |" + " --- |" * len(columns),
    ]
    for case, mode, dtype, images in dict.fromkeys(map(_line, shown)):
        cells = [cell(lines[case, mode, dtype, images]) for cell in columns.values()]
        name = _CASES.get(case) or f"`{case}`, {images} image{'s' * (images != '1')}"
        text.append(f"| {name}, {_MODES[mode]} | {DTYPES[dtype]} | {' | '.join(cells)} |")
    days = ", ".join(f"{', '.join(names)} of {day}" for day, names in commits.items())
    triton = f"triton {where.triton}, " if on_gpu else ""
    text.append(
        "\nOperators and blocks: geometric mean over the shapes (smallest to largest). Nets: median over the rounds "
        "(20th to 80th percentile)."
    )
    text.append(f"\ntorch {where.torch}, timm {where.timm}, {triton}seattn at {days}.")
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
    if row.what == "block" or (not on_gpu and (row.dtype == "autocast_bfloat16" or row.mode.endswith("_compiled"))):
        return False
    if row.shape.startswith("1x") and row.mode != "inference_folded":
        return False
    return row.case.startswith("se_") or row.case in ("seresnet50", "efficientnet_b0")


def _is_shown(row: SpeedRow, on_gpu: bool) -> bool:
    if row.what == "op":
        bar = (row.case, row.mode) == ("se_tail", "forward")
        return row.dtype == ("bfloat16" if on_gpu else "float32") and (bar or row.mode.startswith("forward_backward"))
    return row.mode.startswith("forward_backward") or (
        row.what == "model" and row.mode in _MODES and "parts" not in row.mode
    )


def _ratio_cell(implementation: str, memory_format: str, *, graph: bool) -> Cell:
    def cell(rows: Sequence[SpeedRow]) -> str:
        wanted = (implementation, memory_format, graph)
        chosen = [r for r in rows if (r.implementation, r.memory_format, r.cuda_graph) == wanted]
        if len(chosen) == 1:  # one shape: the spread over the rounds
            return f"{chosen[0].ratio:.2f} × ({chosen[0].ratio_p20:.2f} to {chosen[0].ratio_p80:.2f})"
        return _range([row.ratio for row in chosen])

    return cell


def _percent_cell(rows: Sequence[SpeedRow]) -> str:
    wanted = (OURS, "channels_last", any(row.cuda_graph for row in rows))
    ours = [row for row in rows if (row.implementation, row.memory_format, row.cuda_graph) == wanted]
    percents = [row.copy_percent for row in ours if row.copy_percent is not None]
    return f"{min(percents):.0f} to {max(percents):.0f}" if percents else ""


def _range(ratios: Sequence[float]) -> str:
    if not ratios:
        return ""
    return f"{geometric_mean(ratios):.2f} × ({min(ratios):.2f} to {max(ratios):.2f})"


_CPU_COLUMNS = {
    "timm's time over ours, channels_last": _ratio_cell("timm_eager", "channels_last", graph=False),
    "NCHW": _ratio_cell("timm_eager", "contiguous", graph=False),
    "timm under `torch.compile`, channels_last": _ratio_cell("timm_compile", "channels_last", graph=False),
}
_GPU_COLUMNS = {
    "timm's time over ours, eager": _ratio_cell("timm_eager", "channels_last", graph=False),
    "in CUDA graphs": _ratio_cell("timm_eager", "channels_last", graph=True),
    "`torch.compile`": _ratio_cell("timm_compile", "channels_last", graph=False),
    "% of the copy bandwidth": _percent_cell,
}


def render_steps(rows: Sequence[SpeedRow]) -> str:
    """Markdown: a training step beside the nets that are its parts, a line for each net, dtype and layout.

    Empty where no plain net was timed beside a net with attention.
    """
    steps = [row for row in newest(rows) if row.mode.startswith("training_step") and not row.cuda_graph]
    groups = dict.fromkeys(row.group for row in steps if row.implementation == "plain")
    if not groups:
        return ""
    text = [
        f"| training step, {steps[-1].conditions.machine} | dtype | layout | {' | '.join(_STEP_COLUMNS.values())} |",
        "| --- | --- | --- |" + " --- |" * len(_STEP_COLUMNS),
    ]
    for group in groups:
        by_name = {row.implementation: row for row in steps if row.group == group}
        ours = by_name[OURS]
        cells = [f"`{ours.case}`, {ours.shape.split('x')[0]} images", DTYPES[ours.dtype], LAYOUTS[ours.memory_format]]
        cells += [f"{by_name[name].ratio:.2f}" if name in by_name else "" for name in _STEP_COLUMNS]
        text.append(f"| {' | '.join(cells)} |")
    return "\n".join(text) + "\n"
