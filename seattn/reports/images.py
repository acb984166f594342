"""Images with what nets said of them: as HTML, and as a sheet that is a figure.

Shapes: N images, H x W pixels.

Which images the report shows, and their HTML.
Shapes: N images, K classes.

The channel gates of one image as heat strips, a layer a row.
Shapes: C channels, H x W pixels.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from PIL import Image

from seattn.evaluation.figures import Plot, Theme
from seattn.evaluation.gates import LayerGates
from seattn.evaluation.scoring import FloatArray, IntArray
from seattn.evaluation.statistics import Pair
from seattn.reports.runs import Scores


def choose_images(labels: IntArray, predicted: IntArray, confidence: FloatArray, count: int = 60) -> list[int]:
    """Indices of up to `count` of N images: about half wrong, each pair (true, predicted) once before any pair twice.

    Wrong ones come first, most confident first within a round of pairs; right ones are spread over the classes.
    """
    wrong: IntArray = np.flatnonzero(labels != predicted)
    right: IntArray = np.flatnonzero(labels == predicted)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
    wrong = _rounds(wrong, [(int(labels[i]), int(predicted[i])) for i in wrong])
    right = _rounds(right, [int(labels[i]) for i in right])
    share = min(len(wrong), max(count // 2, count - len(right)))
    return [*wrong[:share].tolist(), *right[: count - share].tolist()]


def _rounds(indices: IntArray, keys: Sequence[object]) -> IntArray:
    """`indices` reordered: the first of every key, then the second of every key, and so on."""
    seen: dict[object, int] = {}
    turn = []
    for key in keys:
        seen[key] = seen.get(key, 0) + 1
        turn.append(seen[key])
    return indices[np.argsort(turn, kind="stable")]


def png_uri(pixels: npt.NDArray[np.uint8]) -> str:
    """`pixels` (H, W, 3) as a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def grid_html(
    chosen: Sequence[int],
    images: npt.NDArray[np.uint8],
    labels: IntArray,
    predicted: IntArray,
    confidence: FloatArray,
    class_names: Sequence[str],
) -> str:
    """The `chosen` of images (N, H, W, 3), each with its true and its predicted class."""
    cells = []
    for i in chosen:
        true, said = escape(class_names[labels[i]]), escape(class_names[predicted[i]])
        right = labels[i] == predicted[i]
        verdict = (
            f'<span class="verdict">✓ {said}</span><span>{confidence[i]:.0%}</span>'
            if right
            else f'<span class="verdict">✗ {said}</span><span>{confidence[i]:.0%}, is <b>{true}</b></span>'
        )
        alt = f"{true}, predicted {said}" + ("" if right else " (wrong)")
        cells.append(
            f'<figure class="{"right" if right else "wrong"}"><img src="{png_uri(images[i])}" alt="{alt}">'
            f"<figcaption>{verdict}</figcaption></figure>"
        )
    return "\n".join(cells)


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


def gates_html(layers: Sequence[LayerGates], image: npt.NDArray[np.uint8], name: str) -> str:
    """A heat strip for each layer, beside the image (H, W, 3) that they belong to."""
    if not layers:
        return '<p class="soft">This model has no attention layer with channel gates.</p>'
    return (
        f'<p class="soft">What each attention layer multiplies its channels by for one image, from the first layer '
        f"(top) to the last; one column a channel.</p>"
        f'<div class="gates"><figure><img src="{png_uri(image)}" alt="the image: {escape(name)}">'
        f"<figcaption>{escape(name)}</figcaption></figure>"
        f"{strips_html(layers)}</div>"
    )


def strips_html(layers: Sequence[LayerGates]) -> str:
    """The strips, the first layer on top, and their scale."""
    top = 2.0 if max(float(layer.gates.max()) for layer in layers) > 1 else 1.0  # 2 * sigmoid gates reach 2
    rows = []
    for layer in layers:
        low, high = float(layer.gates.min()), float(layer.gates.max())
        count = len(layer.gates)
        alt = f"{count} gates of {layer.name} between {low:.2f} and {high:.2f}, mean {layer.gates.mean():.2f}"
        rows.append(
            f'<span>{escape(layer.name)}</span><img src="{_strip(layer.gates / top)}" alt="{escape(alt)}">'
            f"<span>{count} ch, {low:.2f} to {high:.2f}</span>"
        )
    scale = _strip(np.linspace(0, 1, 128, dtype=np.float32))
    return (
        f'<div class="strips">{"".join(rows)}'
        f'<span>scale</span><img class="scale" src="{scale}" alt="colour scale from 0 to {top:g}">'
        f'<span></span><span></span><span class="ends"><span>0, closed</span><span>{top:g}</span></span></div>'
    )


def _strip(values: npt.NDArray[np.float32]) -> str:
    """`values` (C,) between 0 and 1 as an image one pixel high."""
    colors = mpl.colormaps["viridis"](np.clip(values, 0, 1), bytes=True)[None, :, :3]  # (1, C, 3)
    return png_uri(np.ascontiguousarray(colors))
