"""A profile as one figure: parameters and MACs of every part, of the model and of the model it is compared with."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from seattn.core.errors import UserError
from seattn.core.files import require_writable_file, write_bytes
from seattn.evaluation.profile.compare import Comparison, Named
from seattn.evaluation.profile.costs import number
from seattn.evaluation.style import RIGHT, WRONG, Plot, plain_axes

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
    """Draw the comparison into `path`, whole or not at all; the same comparison gives the same bytes.

    There is a panel for parameters and one for MACs, with the parts from top to bottom.
    """
    shown = [(comparison.model, RIGHT)] + ([(comparison.against, WRONG)] if comparison.against else [])
    parts = list(dict.fromkeys(stage.name for named, _ in shown for stage in named.profile.stages))

    def draw(figure: Figure) -> None:
        for axes, (field, title) in zip(figure.subplots(1, 2, sharey=True), _PANELS.items(), strict=True):
            for place, (named, color) in enumerate(shown):
                _bars(axes, named, field, parts, color, place, len(shown))
            axes.set_title(title, fontsize=10)
            axes.set_yticks(range(len(parts)), parts)
            axes.margins(x=0.18)  # for the numbers
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.xaxis.set_major_formatter(lambda value, _: number(value))
            plain_axes(axes, grid="x")
        axes.invert_yaxis()
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(shown), frameon=False)

    names = " against ".join(named.name for named, _ in shown)
    size = "x".join(map(str, comparison.model.profile.input_size))
    height = 1.05 + 0.24 * len(parts) * (1 + len(shown))
    plot = Plot(draw, width=9, height=height, alt=f"Costs of {names}", title=f"{names}, {size}")
    write_bytes(path, plot.titled(path.suffix.lower().removeprefix(".")))


def _bars(axes: Any, named: Named, field: str, parts: list[str], color: str, place: int, count: int) -> None:
    values = {stage.name: getattr(stage, field) for stage in named.profile.stages}
    height = 0.8 / count
    places = [index + (place - (count - 1) / 2) * height for index in range(len(parts))]
    widths = [values.get(part, 0) for part in parts]
    total = named.profile.total
    label = f"{named.name}: {number(total.parameters)} parameters, {number(total.macs)} MACs"
    bars = axes.barh(places, widths, 0.92 * height, color=color, label=label)
    axes.bar_label(bars, [number(width) for width in widths], padding=3, fontsize=8)
