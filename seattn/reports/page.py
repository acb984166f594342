"""The frame of the page on runs, and its tables; figures on it are also kept for files of their own."""

from collections.abc import Iterable, Sequence
from html import escape

from seattn._report_page import CSS, FRAME
from seattn.evaluation.figures import Plot

FOLD = 15  # rows of a table before the rest is folded away

_MORE_CSS = """
.wide { overflow-x: auto; margin-bottom: 1rem; } .wide .figure { max-width: 54rem; min-width: 34rem; }
.note { border-left: 3px solid var(--wrong); padding: .1rem 0 .1rem .9rem; margin: .8rem 0; }
td.text, th.text { text-align: left; white-space: normal; }
td.text { overflow-wrap: anywhere; min-width: 11rem; }
tbody th { min-width: 8rem; max-width: 22rem; overflow-wrap: break-word; white-space: normal; }
thead th { white-space: normal; vertical-align: bottom; min-width: 4rem; overflow-wrap: break-word; }
details { margin: .5rem 0 1rem; } summary { cursor: pointer; color: var(--soft); padding: .3rem 0; }
h3 { font-size: 1rem; font-weight: 600; margin: 1.5rem 0 .4rem; overflow-wrap: anywhere; }
h4 { font-size: .92rem; font-weight: 600; margin: 1rem 0 .2rem; }
.sure { font-weight: 650; } .headline span { overflow-wrap: anywhere; }
"""


class Pages:
    """Sections of one page in order, and the figures in them by the name of their file."""

    def __init__(self) -> None:
        self._sections: list[str] = []
        self.plots: dict[str, Plot] = {}

    def add(self, heading: str, *parts: str, note: str = "", level: int = 2) -> None:
        """A heading, a note in plain text, and HTML."""
        head = f"<h{level}>{escape(heading)}</h{level}>" if heading else ""
        text = f'<p class="soft">{escape(note)}</p>' if note else ""
        self._sections.append("\n".join(filter(None, [head, text, *parts])))

    def figure(self, name: str, plot: Plot, *, wide: bool = False) -> str:
        """The figure as HTML; its PNG will be called `name`.png."""
        self.plots[name] = plot
        return f'<div class="wide">{plot.html()}</div>' if wide else plot.html()

    def keep(self, name: str, plot: Plot) -> None:
        """A figure that stands on the page in another form."""
        self.plots[name] = plot

    def html(self, title: str, head: str) -> str:
        """The whole page; `head` is HTML."""
        return FRAME.substitute(title=escape(title), css=CSS + _MORE_CSS, head=head, sections="\n".join(self._sections))


def note(text: str) -> str:
    """A line that must not be missed."""
    return f'<p class="note">{escape(text)}</p>'


def folded(summary: str, html: str) -> str:
    """What is opened by a click."""
    return f"<details><summary>{escape(summary)}</summary>\n{html}</details>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, fold: str = "", text: Iterable[int] = ()) -> str:
    """A table whose first column names the rows.

    Args:
        head: plain text.
        rows: of each its name and its cells, as HTML.
        fold: what rows are called; given, those after the first FOLD are folded away.
        text: columns that hold words, and wrap.
    """
    words = set(text)
    if fold and len(rows) > FOLD + 3:  # two or three more are not worth a click
        rest = rows[FOLD:]
        return table(head, rows[:FOLD], text=words) + folded(
            f"the other {len(rest)} {fold}", table(head, rest, text=words)
        )
    kind = [' class="text"' if column in words else "" for column in range(len(head))]
    top = "".join(f'<th scope="col"{kind[i]}>{escape(name)}</th>' for i, name in enumerate(head))
    body = "\n".join(
        f'<tr><th scope="row">{row[0]}</th>'
        + "".join(cell if cell.startswith("<td") else f"<td{kind[i]}>{cell}</td>" for i, cell in enumerate(row[1:], 1))
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table>\n<thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def bar(share: float, text: str) -> str:
    """A cell with a bar behind its number."""
    return f'<td class="bar" style="--share:{share:.1%}">{escape(text)}</td>'


def count(number: float) -> str:
    """A count, or a mean of counts."""
    return f"{number:,.0f}" if number == round(number) else f"{number:,.1f}"
