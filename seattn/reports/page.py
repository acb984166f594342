"""A page as plain data: sections of texts, tables, pictures and figures; `templates/page.html.j2` has all the markup.

A page needs no script, no other file and no network.
"""

import base64
import io
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import timm
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from seattn.core.files import printable, whole_files, write_text
from seattn.evaluation.style import PALETTE, Plot

Pixels = npt.NDArray[np.uint8]
FOLD = 15  # rows of a table that are shown before the others are folded away


@dataclass(frozen=True)
class Bar:
    """A table cell with a bar of length `share` (0 to 1) behind its text."""

    share: float
    text: str


@dataclass(frozen=True)
class Bold:
    """A table cell in bold."""

    text: str


Row = Sequence[str | Bar | Bold]


@dataclass(frozen=True)
class Text:
    """A text in one of the styles "soft" (a remark), "note" (a warning), "h3" and "h4" (headings)."""

    kind: ClassVar[str] = "text"
    text: str
    style: str = "soft"


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows.

    Args:
        head: the names of the columns.
        rows: the cells of each row, the row's name first.
        words: columns of words, which are left-aligned and wrapped.
        fold: the plural of what a row is; where given, the rows after the first FOLD are folded away.
        keys: the first column has keys of a recipe, which are not wrapped.
    """

    kind: ClassVar[str] = "table"
    head: Sequence[str]
    rows: Sequence[Row]
    words: Sequence[int] = ()
    fold: str = ""
    keys: bool = False

    def parts(self) -> tuple[Sequence[Row], Sequence[Row]]:
        """The rows to show and those to fold away; two or three rows more than FOLD are shown too."""
        cut = FOLD if self.fold and len(self.rows) > FOLD + 3 else len(self.rows)
        return self.rows[:cut], self.rows[cut:]


@dataclass(frozen=True)
class Drawing:
    """A figure; a wide one scrolls on a narrow screen."""

    kind: ClassVar[str] = "drawing"
    plot: Plot
    wide: bool = False


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture (H, W, 3) with an alternative text, and lines of text below it."""

    kind: ClassVar[str] = "picture"
    pixels: Pixels
    alt: str
    lines: Sequence[str]
    wrong: bool = False

    def uri(self) -> str:
        """The picture as a data URI."""
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(self.pixels)).save(buffer, "PNG", optimize=True)
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


@dataclass(frozen=True)
class Strip:
    """A row of channels: its name, its range in words, and its colours as a picture of one pixel's height."""

    name: str
    text: str
    picture: Picture


@dataclass(frozen=True)
class Strips:
    """Rows of channels, and their scale from 0 to `top`."""

    kind: ClassVar[str] = "strips"
    strips: Sequence[Strip]
    scale: Picture
    top: float


@dataclass(frozen=True)
class Group:
    """Parts side by side, in one of the styles "pair", "trio", "maps", "gates" and "grid"; "" puts them in a column.

    A "grid" has small pictures of images that are classified right or wrong; the first line of each is the verdict.
    """

    kind: ClassVar[str] = "group"
    style: str
    parts: Sequence["Part"]


@dataclass(frozen=True)
class Folded:
    """Parts that a click on the summary shows."""

    kind: ClassVar[str] = "folded"
    summary: str
    parts: Sequence["Part"]


Part = Text | Table | Drawing | Picture | Strips | Group | Folded


@dataclass(frozen=True)
class Headline:
    """The top of a page: one number, a sentence about that number, further numbers by name, and facts by name."""

    number: str = ""
    text: str = ""
    tiles: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)


class Page:
    """The sections of one page in order, and its figures by the names of their PNG files."""

    def __init__(self) -> None:
        self.sections: list[tuple[str, list[Part]]] = []
        self.plots: dict[str, Plot] = {}

    def add(self, heading: str, *parts: Part, note: str = "") -> None:
        """Append a section with a heading, a remark and parts."""
        remark = [Text(note)] if note else []
        self.sections.append((heading, [*remark, *parts]))

    def figure(self, name: str, plot: Plot, *, wide: bool = False) -> Drawing:
        """A figure on the page that `write_figures` also writes as `name`.png."""
        self.plots[name] = plot
        return Drawing(plot, wide)

    def html(self, title: str, headline: Headline) -> str:
        """The whole page."""
        environment = Environment(
            loader=PackageLoader("seattn.reports"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        template = environment.get_template("page.html.j2")
        return template.render(title=title, headline=headline, sections=self.sections, palette=PALETTE)

    def write(self, path: Path, title: str, headline: Headline) -> None:
        """Write the page to `path`, whole or not at all.

        Raises:
            UserError: if the folder of `path` cannot be written to.
        """
        write_text(path, self.html(title, headline))

    def write_with_figures(self, path: Path, title: str, headline: Headline) -> tuple[Path, ...]:
        """Write the page to `path`, and each figure as a PNG beside it: all files or none; returns the PNGs.

        Raises:
            UserError: if the folder of `path` cannot be written to.
        """
        with whole_files(path.parent) as part:
            for name, plot in self.plots.items():
                (part / f"{name}.png").write_bytes(plot.titled("png"))
            (part / path.name).write_text(printable(self.html(title, headline)), encoding="utf-8")
        return tuple(path.parent / f"{name}.png" for name in self.plots)


def count(number: float) -> str:
    """A count, or a mean of counts with one decimal."""
    return f"{number:,.0f}" if number == round(number) else f"{number:,.1f}"


def versions() -> str:
    """The versions of the packages that made a page."""
    return (
        f"seattn {version('seattn')}, timm {timm.__version__}, torch {torch.__version__}, Python "
        f"{platform.python_version()}"
    )
