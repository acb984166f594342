"""Which images the report shows, and their HTML.

Shapes: N images, K classes.
"""

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt
from PIL import Image

from seattn.evaluation.scoring import FloatArray, IntArray


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
