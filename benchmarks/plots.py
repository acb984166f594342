"""Draw time and bandwidth against size from the rows: `python -m benchmarks.plots`, or `make bench-plots`.

Each file of speed rows, benchmarks/results/<device>.csv or the files given, gets one SVG for each mode beside it:
<device>.<mode>.svg. All numbers in it are from the file.
"""

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from benchmarks._command import Parser, command
from benchmarks.speed.rows import SpeedRow, newest, speed_files
from seattn.core.errors import UserError
from seattn.core.files import not_found, write_text
from seattn.core.records import read_rows
from seattn.evaluation.style import figure_style

MODES = ("forward", "forward_backward")
_PANELS = (
    ("se_tail", "channels_last", "SE + add + ReLU, channels_last"),
    ("se_tail", "contiguous", "SE + add + ReLU, NCHW"),
    ("bn_se_tail", "channels_last", "BN + SE + add + ReLU, channels_last"),
    ("bn_se_tail", "contiguous", "BN + SE + add + ReLU, NCHW"),
)
# Okabe and Ito's colours, which people with any colour vision can distinguish; and a marker for each.
_STYLES = {
    "seattn": ("seattn", "#0072b2", "o"),
    "timm_eager": ("timm", "#d55e00", "s"),
    "timm_channels_last": ("timm in channels_last", "#e69f00", "^"),
    "timm_compile": ("timm under torch.compile", "#009e73", "D"),
}
_SHIFT = 1.06  # between implementations on the axis of sizes, so that their bars do not cover each other


def draw(rows: Sequence[SpeedRow], mode: str) -> Figure | None:
    """Time and bandwidth of the two SE tails in both layouts, in the device's main dtype; None without such rows.

    Rows in CUDA graphs are preferred: without graphs, small sizes show only the time of launches.
    """
    rows = [row for row in newest(rows) if row.what == "op" and row.mode == mode]
    graphs = any(row.cuda_graph for row in rows)
    rows = [row for row in rows if row.cuda_graph == graphs]
    dtypes = {row.dtype for row in rows}
    dtype = "float32" if "float32" in dtypes else "bfloat16"  # a CPU's rows have both
    panels = [
        (title, panel)
        for case, memory_format, title in _PANELS
        if (panel := [r for r in rows if (r.case, r.memory_format, r.dtype) == (case, memory_format, dtype)])
    ]
    if not panels:
        return None
    with mpl.rc_context(figure_style()):
        figure = Figure(figsize=(3.1 * len(panels) + 0.6, 5.8), layout="constrained")
        axes = figure.subplots(2, len(panels), sharex=True, sharey="row", squeeze=False)
        for column, (title, panel) in enumerate(panels):
            _draw_panel(axes[0, column], panel, bandwidth=False)
            _draw_panel(axes[1, column], panel, bandwidth=True)
            axes[0, column].set_title(title, fontsize=9)
            axes[1, column].set_xlabel("T, MB of the input")
        axes[1, 0].set_ylim(bottom=0)  # after the last panel: it ends the automatic scaling, which all share
        axes[0, 0].set_ylabel("milliseconds, median, 20 to 80 %")
        axes[1, 0].set_ylabel("% of the copy bandwidth")
        handles = {h.get_label(): h for ax in axes[0] for h in ax.get_legend_handles_labels()[0]}
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), frameon=False)
        where = panels[0][1][0].conditions
        figure.suptitle(
            f"{mode.replace('_', ' + ')}, {dtype}{', CUDA graphs' if graphs else ''}: {where.hardware}, "
            f"torch {where.torch}, {where.date}",
            fontsize=10,
        )
    return figure


def _draw_panel(axes: Any, rows: Sequence[SpeedRow], *, bandwidth: bool) -> None:
    present = [name for name in _STYLES if any(row.implementation == name for row in rows)]
    for place, name in enumerate(present):
        label, color, marker = _STYLES[name]
        drawn = sorted((row for row in rows if row.implementation == name), key=lambda row: row.input_bytes)
        sizes = [row.input_bytes / 1e6 * _SHIFT ** (place - (len(present) - 1) / 2) for row in drawn]
        middle = [_value(row, row.median, bandwidth) for row in drawn]
        ends = [sorted((_value(row, row.p20, bandwidth), _value(row, row.p80, bandwidth))) for row in drawn]
        errors = [
            [max(0.0, m - low) for m, (low, _) in zip(middle, ends, strict=True)],
            [max(0.0, high - m) for m, (_, high) in zip(middle, ends, strict=True)],
        ]
        axes.errorbar(sizes, middle, errors, fmt=marker, color=color, markersize=4, elinewidth=1, label=label)
        at_size: dict[float, list[float]] = {}
        for size, value in zip(sizes, middle, strict=True):  # several shapes have one size
            at_size.setdefault(size, []).append(value)
        axes.plot(list(at_size), [geometric_mean(v) for v in at_size.values()], color=color, linewidth=0.8, alpha=0.6)
    axes.set_xscale("log")
    if bandwidth:
        axes.axhline(100, color="#555555", linewidth=0.8, linestyle="--")
    else:
        axes.set_yscale("log")
    for axis in (axes.xaxis,) if bandwidth else (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(NullLocator())
    axes.grid(which="major", color="#000000", alpha=0.12, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _value(row: SpeedRow, seconds: float, bandwidth: bool) -> float:
    if not bandwidth:
        return 1e3 * seconds
    assert row.bytes_moved is not None
    return 100 * row.bytes_moved / seconds / row.copy_bandwidth


def write_plots(path: Path) -> list[Path]:
    """Draw the rows of one file; return the SVGs."""
    written = []
    for mode in MODES:
        figure = draw(read_rows(SpeedRow, path), mode)
        if figure is None:
            continue
        buffer = io.StringIO()
        with mpl.rc_context(figure_style()):
            figure.savefig(buffer, format="svg", metadata={"Date": None})  # the same rows, byte for byte
        target = path.with_suffix(f".{mode}.svg")
        write_text(target, buffer.getvalue())
        written.append(target)
    return written


@command("plots")
def main(arguments: Sequence[str] | None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("file", nargs="*", type=Path, help="CSV files of speed rows; by default all in the results")
    files = parser.parse_args(arguments).file or speed_files()
    for path in files:
        if not path.exists():
            raise UserError(f"{not_found('file', path)}; make bench writes the rows")
    written = [plot for path in files for plot in write_plots(path)]
    if not written:
        raise UserError("no rows of operators to draw; make bench writes them")
    for plot in written:
        print(plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
