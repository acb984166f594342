"""The pictures of a page: which images are shown, with the classes that nets predict, and channel gates as strips.

Shapes: N images, C channels, H x W pixels.
"""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from seattn.evaluation.gates import LayerGates
from seattn.evaluation.scoring import IntArray, Scores
from seattn.evaluation.statistics import Pair
from seattn.evaluation.style import Plot, shortened
from seattn.reports.page import Picture, Pixels, Strip, Strips

SHOWN = 24  # images of one kind
_COLUMNS = 8
_WIDTH, _PITCH = 0.94, 1.32  # of a picture, and from row to row, where the distance of two columns is 1
_LINE = 19  # characters that fit below a picture of a figure


def choose_images(scores: Scores, count: int = 60) -> list[int]:
    """Indices of up to `count` of N images: about half wrong, each pair (true, predicted) once before any pair twice.

    Wrong images come first, the most confident first within a round of pairs; right ones are spread over the classes.
    """
    wrong: IntArray = np.flatnonzero(~scores.correct)
    right: IntArray = np.flatnonzero(scores.correct)
    wrong = wrong[np.argsort(-scores.confidence[wrong], kind="stable")]
    wrong = _rounds(wrong, [(int(scores.labels[i]), int(scores.predicted[i])) for i in wrong])
    right = _rounds(right, [int(scores.labels[i]) for i in right])
    share = min(len(wrong), max(count // 2, count - len(right)))
    return [*wrong[:share].tolist(), *right[: count - share].tolist()]


def _rounds(indices: IntArray, keys: Sequence[object]) -> IntArray:
    """`indices` reordered: the first of every key, then the second of every key, and so on."""
    seen: dict[object, int] = {}
    rounds = []
    for key in keys:
        seen[key] = seen.get(key, 0) + 1
        rounds.append(seen[key])
    return indices[np.argsort(rounds, kind="stable")]


def answer_picture(scores: Scores, index: int) -> Picture:
    """One image with the predicted class, its confidence, and the true class where the prediction is wrong."""
    names = scores.evaluation.class_names
    true, predicted = names[scores.labels[index]], names[scores.predicted[index]]
    confidence = f"{scores.confidence[index]:.0%}"
    if scores.correct[index]:
        return Picture(scores.pictures[index], f"{true}, predicted {predicted}", (f"✓ {predicted} {confidence}",))
    return Picture(
        scores.pictures[index],
        f"{true}, predicted {predicted} (wrong)",
        (f"✗ {predicted} {confidence}", f"is {true}"),
        wrong=True,
    )


def worst_images(scores: Scores, count: int = SHOWN) -> list[Picture]:
    """The mistakes with the highest confidence."""
    wrong = np.flatnonzero(~scores.correct)
    return [answer_picture(scores, i) for i in _most_confident(wrong, scores)[:count]]


def pair_images(scores: Scores, pair: Pair, count: int = 6) -> list[Picture]:
    """Up to `count` images of each direction of the pair, those with the highest confidence."""
    pictures = []
    for true, predicted in ((pair.first, pair.second), (pair.second, pair.first)):
        indices = np.flatnonzero((scores.labels == true) & (scores.predicted == predicted))
        pictures += [answer_picture(scores, i) for i in _most_confident(indices, scores)[:count]]
    return pictures


def changed_images(before: Scores, after: Scores, *, gained: bool, count: int = SHOWN) -> tuple[list[Picture], int]:
    """Images that are right only after (`gained`) or only before, up to `count`, and the number of all of them.

    The mistakes with the highest confidence come first.
    """
    changed = (~before.correct & after.correct) if gained else (before.correct & ~after.correct)
    indices = np.flatnonzero(changed)
    pictures = []
    for i in _most_confident(indices, before if gained else after)[:count]:
        names = before.evaluation.class_names
        was, now = names[before.predicted[i]], names[after.predicted[i]]
        lines = (f"{'✓' if gained else '✗'} {now} {after.confidence[i]:.0%}", f"was {was} {before.confidence[i]:.0%}")
        alt = f"{names[before.labels[i]]}, before {was}, after {now}"
        pictures.append(Picture(after.pictures[i], alt, lines, wrong=not gained))
    return pictures, len(indices)


def _most_confident(indices: IntArray, scores: Scores) -> list[int]:
    return [int(i) for i in indices[np.argsort(-scores.confidence[indices], kind="stable")]]


def images_plot(pictures: Sequence[Picture], title: str) -> Plot:
    """The pictures with their lines as a figure."""
    rows = -(-len(pictures) // _COLUMNS)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()  # one for all pictures: matplotlib needs seconds to lay out one for each
        for place, picture in enumerate(pictures):
            x, y = place % _COLUMNS, _PITCH * (place // _COLUMNS)
            axes.imshow(picture.pixels, interpolation="nearest", extent=(x, x + _WIDTH, y + _WIDTH, y))
            lines = "\n".join(_fitting(line) for line in picture.lines)
            axes.text(x + _WIDTH / 2, y + _WIDTH + 0.03, lines, ha="center", va="top", fontsize=7)
        axes.set(xlim=(0, _COLUMNS - 1 + _WIDTH), ylim=(_PITCH * rows, 0), aspect="equal")
        axes.axis("off")

    alt = "; ".join(picture.alt for picture in pictures)
    return Plot(draw, 1.15 * _COLUMNS, 1.15 * _PITCH * rows, alt, title)


def _fitting(line: str) -> str:
    """At most _LINE characters of the line; a percentage at its end stays."""
    words, _, share = line.rpartition(" ") if line.endswith("%") else (line, "", "")
    return f"{shortened(words, _LINE - len(share))} {share}".rstrip()


def gate_strips(layers: Sequence[LayerGates]) -> Strips:
    """The channel gates of each layer as a strip of colours, the first layer on top."""
    top = 2.0 if max(float(layer.gates.max()) for layer in layers) > 1 else 1.0  # gates 2 * sigmoid reach 2
    strips = []
    for layer in layers:
        low, high, channels = float(layer.gates.min()), float(layer.gates.max()), len(layer.gates)
        alt = f"{channels} gates of {layer.name} between {low:.2f} and {high:.2f}, mean {layer.gates.mean():.2f}"
        picture = Picture(heat_pixels(layer.gates[None] / top), alt, ())
        strips.append(Strip(layer.name, f"{channels} ch, {low:.2f} to {high:.2f}", picture))
    scale = heat_pixels(np.linspace(0, 1, 128, dtype=np.float32)[None])
    return Strips(strips, Picture(scale, f"colour scale from 0 to {top:g}", ()), top)


def heat_pixels(values: npt.NDArray[np.float32]) -> Pixels:
    """Values (H, W) between 0 and 1 as colours (H, W, 3)."""
    return np.asarray(mpl.colormaps["viridis"](np.clip(values, 0, 1), bytes=True)[..., :3])
