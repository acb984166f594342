"""Images with what nets said of them: as HTML, and as a sheet that is a figure.

Shapes: N images, H x W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from seattn._report_grid import png_uri
from seattn._run_report_scores import Scores
from seattn.evaluation.figures import Plot, Theme
from seattn.evaluation.scoring import IntArray
from seattn.evaluation.statistics import Pair

SHOWN = 24  # of one kind
_COLUMNS = 8
_WIDTH, _PITCH = 0.94, 1.32  # of a picture, and from row to row; the columns are 1 apart


@dataclass(frozen=True, eq=False)
class Shown:
    """One picture (H, W, 3), what stands under it line by line (the first is the verdict), and whether it is wrong."""

    picture: npt.NDArray[np.uint8]
    lines: tuple[str, ...]
    alt: str
    wrong: bool


def worst_images(scores: Scores, count: int = SHOWN) -> list[Shown]:
    """The mistakes that the net was most sure of."""
    wrong = np.flatnonzero(~scores.correct)
    return [_mistake(scores, i) for i in _most_confident(wrong, scores)[:count]]


def pair_images(scores: Scores, pair: Pair, count: int = 6) -> list[Shown]:
    """Of each direction of the pair up to `count` images, the surest mistakes."""
    found = []
    for true, said in ((pair.first, pair.second), (pair.second, pair.first)):
        index = np.flatnonzero((scores.labels == true) & (scores.predicted == said))
        found += [_mistake(scores, i) for i in _most_confident(index, scores)[:count]]
    return found


def changed_images(before: Scores, after: Scores, *, gained: bool, count: int = SHOWN) -> tuple[list[Shown], int]:
    """Images that were wrong and are right now, or the reverse: the surest mistakes; and how many there are in all."""
    index = np.flatnonzero((~before.correct & after.correct) if gained else (before.correct & ~after.correct))
    shown = []
    for i in _most_confident(index, before if gained else after)[:count]:
        names = before.evaluation.class_names
        was, now = names[before.predicted[i]], names[after.predicted[i]]
        lines = (f"{'✓' if gained else '✗'} {now} {after.confidence[i]:.0%}", f"was {was} {before.confidence[i]:.0%}")
        alt = f"{names[before.labels[i]]}, before {was}, after {now}"
        shown.append(Shown(after.pictures[i], lines, alt, wrong=not gained))
    return shown, len(index)


def _most_confident(index: IntArray, scores: Scores) -> list[int]:
    order: list[int] = index[np.argsort(-scores.confidence[index], kind="stable")].tolist()
    return order


def _mistake(scores: Scores, i: int) -> Shown:
    names = scores.evaluation.class_names
    true, said = names[scores.labels[i]], names[scores.predicted[i]]
    lines = (f"✗ {said} {scores.confidence[i]:.0%}", f"is {true}")
    return Shown(scores.pictures[i], lines, f"{true}, predicted {said} (wrong)", wrong=True)


def images_html(shown: Sequence[Shown]) -> str:
    """A grid, as `grid` of the page's style."""
    cells = []
    for one in shown:
        verdict, *rest = (escape(line) for line in one.lines)
        lines = f'<span class="verdict">{verdict}</span>' + "".join(f"<span>{line}</span>" for line in rest)
        cells.append(
            f'<figure class="{"wrong" if one.wrong else "right"}"><img src="{png_uri(one.picture)}" '
            f'alt="{escape(one.alt)}"><figcaption>{lines}</figcaption></figure>'
        )
    return f'<div class="grid">{"".join(cells)}</div>'


def images_plot(shown: Sequence[Shown], title: str) -> Plot:
    """The same as a figure, for a file of its own."""
    rows = -(-len(shown) // _COLUMNS)

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()  # one for all: laying out one an image takes seconds
        for place, one in enumerate(shown):
            x, y = place % _COLUMNS, _PITCH * (place // _COLUMNS)
            axes.imshow(one.picture, interpolation="nearest", extent=(x, x + _WIDTH, y + _WIDTH, y))
            lines = [_short(line) for line in one.lines]
            axes.text(x + _WIDTH / 2, y + _WIDTH + 0.03, "\n".join(lines), ha="center", va="top", fontsize=7)
        axes.set(xlim=(0, _COLUMNS - 1 + _WIDTH), ylim=(_PITCH * rows, 0), aspect="equal")
        axes.axis("off")

    alt = "; ".join(one.alt for one in shown)
    return Plot(draw, 1.15 * _COLUMNS, 1.15 * _PITCH * rows, alt, title)


def _short(line: str, most: int = 19) -> str:
    """Cut in the words, not in the share at the end."""
    words, _, share = line.rpartition(" ") if line.endswith("%") else (line, "", "")
    room = most - len(share)
    return f"{words if len(words) <= room else words[: room - 1] + '…'} {share}".rstrip()
