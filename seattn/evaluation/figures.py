"""A report's figure: inline SVG for a light and a dark page, a PNG that stands alone; colours of Okabe and Ito."""

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from seattn.core.files import atomic_path

RIGHT, WRONG = "#0072b2", "#d55e00"  # blue and vermilion: told apart by every kind of colour vision
RIGHT_DARK, WRONG_DARK = "#56b4e9", "#e69f00"
_SERIES = (RIGHT, WRONG, "#009e73", "#cc79a7", "#7f6000", "#5e4fa2", "#000000")
_SERIES_DARK = (RIGHT_DARK, WRONG_DARK, "#2fd0a0", "#e6a3c8", "#f0e442", "#a99bea", "#ffffff")
_DPI = 150


class Theme:
    """The colours of a figure on a light or a dark page."""

    def __init__(self, *, dark: bool) -> None:
        self.text = "#e6e6e6" if dark else "#1f2328"
        self.page = "#14171a" if dark else "#ffffff"
        self.right = RIGHT_DARK if dark else RIGHT
        self.wrong = WRONG_DARK if dark else WRONG
        self._series = _SERIES_DARK if dark else _SERIES

    def series(self, index: int) -> str:
        """The colour of the series of that number; the same for all series of one run."""
        return self._series[index % len(self._series)]


@dataclass(frozen=True)
class Plot:
    """What `draw` draws, width x height inches; `title` heads the PNG, `alt` says in words what is to be seen."""

    draw: Callable[[Figure, Theme], None]
    width: float
    height: float
    alt: str
    title: str = ""

    def html(self) -> str:
        """For both colour schemes."""
        light, dark = (self._svg_uri(Theme(dark=dark)) for dark in (False, True))
        return (
            f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
            f'<img class="figure" src="{light}" alt="{escape(self.alt)}"></picture>'
        )

    def write_png(self, path: Path) -> None:
        """Write it to `path`, light, under its title; whole or not at all."""
        theme, buffer = Theme(dark=False), io.BytesIO()
        with mpl.rc_context(_style(theme)):
            figure = Figure(figsize=(self.width, self.height + 0.35), layout="constrained", facecolor=theme.page)
            self.draw(figure, theme)
            figure.suptitle(self.title, fontsize=11)
            figure.savefig(buffer, format="png", dpi=_DPI)
        with atomic_path(path) as part:
            part.write_bytes(buffer.getvalue())

    def svg(self, theme: Theme, *, paper: str = "none", metadata: Mapping[str, str] | None = None) -> bytes:
        """Without its title, on a `paper` of that colour; the same bytes each time."""
        buffer = io.BytesIO()
        with mpl.rc_context(_style(theme)):
            figure = Figure(figsize=(self.width, self.height), layout="constrained", facecolor=paper)
            self.draw(figure, theme)
            known = {"Date": None, **(metadata or {})}
            figure.savefig(buffer, format="svg", transparent=paper == "none", metadata=known)
        return buffer.getvalue()

    def _svg_uri(self, theme: Theme) -> str:
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg(theme)).decode("ascii")


def _style(theme: Theme) -> dict[Any, Any]:
    return {
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "svg.hashsalt": "seattn",  # with Date=None above: the same report, byte for byte
        **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), theme.text),
    }
