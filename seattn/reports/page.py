"""The frame of the page on runs, and its tables; figures on it are also kept for files of their own.

The frame of all HTML reports, no script, nothing fetched, and the parts of the report on one net.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from string import Template

from seattn.evaluation.figures import Plot

CSS = """
:root { color-scheme: light dark; --page: #ffffff; --text: #1f2328; --soft: #59636e; --line: #d8dee4;
  --right: #0072b2; --wrong: #d55e00; --bar: #0072b226; }
@media (prefers-color-scheme: dark) { :root { --page: #14171a; --text: #e6e6e6; --soft: #9aa4ae; --line: #343b42;
  --right: #56b4e9; --wrong: #e69f00; --bar: #56b4e933; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 2.5rem 1.25rem 4rem; background: var(--page); color: var(--text);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.5rem; font-weight: 600; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; font-weight: 600; margin: 3rem 0 .25rem; }
p { max-width: 44rem; margin: .25rem 0 1rem; }
.soft, figcaption, caption { color: var(--soft); }
.headline { display: flex; flex-wrap: wrap; align-items: baseline; gap: .25rem 1.25rem; margin: 1.25rem 0 .5rem; }
.headline strong { font-size: 3.5rem; line-height: 1.1; font-weight: 650; font-variant-numeric: tabular-nums; }
.tiles { display: flex; flex-wrap: wrap; gap: .5rem 2rem; margin: 0 0 1.5rem; }
.tiles div { display: flex; flex-direction: column-reverse; }
.tiles dd { margin: 0; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
.tiles dt { font-size: .85rem; color: var(--soft); }
.facts { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .15rem 1.25rem; margin: 0;
  padding: .9rem 0; border: solid var(--line); border-width: 1px 0; font-size: .92rem; }
.facts dt { color: var(--soft); }
.facts dd { margin: 0; overflow-wrap: anywhere; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 0 2.5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .75rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; } th:first-child { text-align: left; }
td.bar { background: linear-gradient(to right, var(--bar) var(--share), transparent var(--share)); }
.figure { display: block; width: 100%; height: auto; max-width: 40rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(5.6rem, 1fr)); gap: 1rem .65rem; }
.grid figure { margin: 0; }
.grid img { display: block; width: 100%; aspect-ratio: 1; image-rendering: pixelated; border: 3px solid var(--line); }
.grid .wrong img { border: 3px dashed var(--wrong); }
.grid figcaption { font-size: .75rem; line-height: 1.3; margin-top: .3rem; overflow-wrap: anywhere; }
.grid figcaption span { display: block; }
.grid .verdict { color: var(--text); }
.grid .wrong .verdict { color: var(--wrong); font-weight: 600; }
.grid b { color: var(--text); font-weight: 600; }
.gates { display: grid; grid-template-columns: 9rem minmax(0, 1fr); gap: 1.5rem; align-items: start; }
.gates > figure { margin: 0; } .gates > figure img { width: 100%; image-rendering: pixelated; display: block; }
.strips { display: grid; grid-template-columns: max-content minmax(0, 1fr) max-content; gap: .2rem .9rem;
  align-items: center; font-size: .8rem; font-variant-numeric: tabular-nums; }
.strips img { display: block; width: 100%; height: 1.1rem; image-rendering: pixelated; }
.strips span { color: var(--soft); } .strips .scale { height: .5rem; }
.ends { display: flex; justify-content: space-between; }
@media (max-width: 40rem) { .gates { grid-template-columns: 1fr; } .gates > figure { max-width: 9rem; }
  .headline strong { font-size: 2.6rem; } th, td { padding: .3rem .45rem; } }
"""

# Of every page; what is new on one of them goes in as `head` and `sections`.
FRAME = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$css</style>
</head>
<body>
<header>
<h1>$title</h1>
$head
</header>
<main>
$sections
</main>
</body>
</html>
""")

HEAD = Template("""<div class="headline"><strong>$top1</strong><span>$interval</span></div>
<dl class="tiles">$tiles</dl>
<dl class="facts">$facts</dl>""")

SECTIONS = Template("""<h2>Images</h2>
<p class="soft">$grid_note</p>
<div class="grid">
$grid
</div>
<h2>Classes</h2>
<div class="scroll"><table>
<thead><tr><th scope="col">class</th><th scope="col">recall</th><th scope="col">precision</th><th scope="col">F1</th>
<th scope="col">images</th></tr></thead>
<tbody>
$rows
</tbody></table></div>
<div class="pair">
<section><h2>Confusions</h2>
<p class="soft">Rows are true classes. Blue: share of a class that is right; orange: mistakes, on a scale of their
own that ends at the most frequent one.</p>
$confusion</section>
<section><h2>Calibration</h2>
<p class="soft">Of the images given a confidence, how many are right. The expected calibration error, the mean gap, is
$ece.</p>
$reliability</section>
</div>
<h2>Channel gates</h2>
$gates""")


def definitions(items: Mapping[str, str], *, wrap: bool = True) -> str:
    """Terms and their texts for a <dl>, escaped; each pair in a <div> of its own if `wrap`."""
    start, end = ("<div>", "</div>") if wrap else ("", "")
    return "\n".join(f"{start}<dt>{escape(key)}</dt><dd>{escape(value)}</dd>{end}" for key, value in items.items())


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
