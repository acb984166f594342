"""A profile as one figure: parameters and MACs of every part, of the model and of the model it is compared with."""

import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from seattn.core.errors import UserError
from seattn.core.files import require_writable_file, write_bytes
from seattn.evaluation.profile.compare import Comparison, Named
from seattn.evaluation.profile.costs import number
from seattn.evaluation.style import DPI, RIGHT, WRONG, figure_style

SUFFIXES = (".png", ".svg")
_PANELS = {"parameters": "parameters", "macs": "MACs of one image"}


def check_plot(path: Path) -> None:
    """Check before any work that a figure can be written to `path`.

    Raises:
        UserError: if the suffix is unknown, or the folder cannot be written to.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"--plot {path} must end in {' or '.join(SUFFIXES)}")
    require_writable_file(path)


def write_plot(path: Path, comparison: Comparison) -> None:
    """Draw the comparison into `path`, whole or not at all; the same comparison gives the same bytes."""
    buffer = io.BytesIO()
    kind = path.suffix.lower().removeprefix(".")
    with mpl.rc_context(figure_style()):
        metadata = {"Date": None} if kind == "svg" else None
        draw(comparison).savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
    write_bytes(path, buffer.getvalue())


def draw(comparison: Comparison) -> Figure:
    """A panel for parameters and one for MACs; parts from top to bottom, bars from zero."""
    shown = [(comparison.model, RIGHT)] + ([(comparison.against, WRONG)] if comparison.against else [])
    parts = list(dict.fromkeys(stage.name for named, _ in shown for stage in named.profile.stages))
    size = "x".join(map(str, comparison.model.profile.input_size))
    figure = Figure(figsize=(9, 1.4 + 0.24 * len(parts) * (1 + len(shown))), layout="constrained")
    for axes, (field, title) in zip(figure.subplots(1, 2, sharey=True), _PANELS.items(), strict=True):
        for place, (named, color) in enumerate(shown):
            _bars(axes, named, field, parts, color, place, len(shown))
        axes.set_title(title, fontsize=10)
        axes.set_yticks(range(len(parts)), parts)
        axes.margins(x=0.18)  # for the numbers
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(lambda value, _: number(value))
        axes.grid(axis="x", color="#000000", alpha=0.12, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        if field == "parameters":
            axes.invert_yaxis()
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(shown), frameon=False)
    figure.suptitle(f"{' against '.join(named.name for named, _ in shown)}, {size}", fontsize=11)
    return figure


def _bars(axes: Any, named: Named, field: str, parts: list[str], color: str, place: int, count: int) -> None:
    values = {stage.name: getattr(stage, field) for stage in named.profile.stages}
    height = 0.8 / count
    places = [index + (place - (count - 1) / 2) * height for index in range(len(parts))]
    widths = [values.get(part, 0) for part in parts]
    total = named.profile.total
    label = f"{named.name}: {number(total.parameters)} parameters, {number(total.macs)} MACs"
    bars = axes.barh(places, widths, 0.92 * height, color=color, label=label)
    axes.bar_label(bars, [number(width) for width in widths], padding=3, fontsize=8)
