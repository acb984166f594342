"""How pages and figures look: the colours for light and dark, the style of matplotlib, and a figure as a file.

The colours of series are those of Okabe and Ito (https://jfly.uni-koeln.de/color/): people with any kind of colour
vision can tell them apart.
"""

import base64
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

DPI = 150
FONT = "DejaVu Sans"


class Color(NamedTuple):
    """One colour on a light and on a dark page."""

    light: str
    dark: str


# Each is the CSS variable `--name` of pages and figures. Figures are drawn in the light colours.
PALETTE = {
    "page": Color("#ffffff", "#14171a"),
    "text": Color("#1f2328", "#e6e6e6"),
    "soft": Color("#59636e", "#9aa4ae"),
    "line": Color("#d8dee4", "#343b42"),
    "bar": Color("#0072b226", "#56b4e933"),
    "right": Color("#0072b2", "#56b4e9"),
    "wrong": Color("#d55e00", "#e69f00"),
    "green": Color("#009e73", "#2fd0a0"),
    "pink": Color("#cc79a7", "#e6a3c8"),
    "brown": Color("#7f6000", "#f0e442"),
    "purple": Color("#5e4fa2", "#a99bea"),
    "grey": Color("#111111", "#fefefe"),
}
PAGE, TEXT, RIGHT, WRONG = (PALETTE[name].light for name in ("page", "text", "right", "wrong"))
SERIES = tuple(PALETTE[name].light for name in ("right", "wrong", "green", "pink", "brown", "purple", "grey"))
_VARIABLES = {color.light: f"var(--{name})" for name, color in PALETTE.items()}


def series_color(index: int) -> str:
    """The colour of a series by its number; colours repeat after the last one."""
    return SERIES[index % len(SERIES)]


def figure_style(font_size: float = 9) -> dict[Any, Any]:
    """The rcParams of every figure; together with `metadata={"Date": None}`, the same figure has the same bytes."""
    return {"font.family": FONT, "font.size": font_size, "svg.hashsalt": "seattn"}


def _page_style() -> dict[Any, Any]:
    colored = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    return {**figure_style(), **dict.fromkeys(colored, TEXT)}


def plain_axes(axes: Any, *, grid: str = "both") -> None:
    """Remove the frame's upper and right line, and draw a faint grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color=TEXT, alpha=0.12, linewidth=0.6)
    axes.set_axisbelow(True)


def legend_above(axes: Any, *, columns: int = 2) -> None:
    """A legend between the title and the data, which it never covers."""
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.2)


def shortened(text: str, length: int = 20) -> str:
    """The text, or its beginning and an ellipsis, so that it fits into a figure."""
    return text if len(text) <= length else text[: length - 1] + "…"


@dataclass(frozen=True)
class Plot:
    """A figure of a page.

    Args:
        draw: draws into an empty figure, in colours of `PALETTE` only.
        width, height: in inches.
        alt: describes the figure in words.
        title: the heading of the PNG.
    """

    draw: Callable[[Figure], None]
    width: float
    height: float
    alt: str
    title: str = ""

    def svg(self, *, paper: str = "none", metadata: Mapping[str, str] | None = None) -> bytes:
        """The figure without its title in light colours on a background of the colour `paper`."""
        buffer = io.BytesIO()
        with mpl.rc_context(_page_style()):
            figure = Figure(figsize=(self.width, self.height), layout="constrained", facecolor=paper)
            self.draw(figure)
            figure.savefig(
                buffer, format="svg", transparent=paper == "none", metadata={"Date": None, **(metadata or {})}
            )
        return buffer.getvalue()

    def themed(self) -> str:
        """The figure as the text of an SVG whose colours are the CSS variables of PALETTE, such as `var(--text)`."""
        return re.sub("|".join(_VARIABLES), lambda match: _VARIABLES[match.group()], self.svg().decode("utf-8"))

    def uri(self) -> str:
        """The figure as a data URI: an SVG that takes the light or the dark colours as the reader's system asks."""
        svg = self.themed()
        light, dark = ("".join(f"--{name}:{color[i]};" for name, color in PALETTE.items()) for i in (0, 1))
        style = f"<style>svg{{{light}}}@media (prefers-color-scheme: dark){{svg{{{dark}}}}}</style>"
        svg = svg.replace("<defs>", f"<defs>{style}", 1)
        return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode("ascii")

    def titled(self, kind: str) -> bytes:
        """The figure under its title in light colours, as a file of the kind "png" or "svg"."""
        buffer = io.BytesIO()
        with mpl.rc_context(_page_style()):
            figure = Figure(figsize=(self.width, self.height + 0.35), layout="constrained", facecolor=PAGE)
            self.draw(figure)
            figure.suptitle(self.title, fontsize=11)
            figure.savefig(buffer, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else None)
        return buffer.getvalue()
