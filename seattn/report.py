"""One HTML page on what a model does on a set of images; it needs no other file and no network.

Shapes: N images, K classes, C channels, H x W pixels.
"""

from collections.abc import Mapping
from html import escape
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from seattn._files import write_text
from seattn._report_gates import LayerGates, collect_gates
from seattn._report_grid import choose_images, grid_html, png_uri
from seattn._report_page import CSS, PAGE
from seattn._report_plots import confusion_picture, reliability_picture
from seattn.evaluate import Evaluation, FloatArray, IntArray
from seattn.predict import eval_transform, image_mode


def write_report(
    path: Path,
    *,
    title: str,
    model: nn.Module,
    evaluation: Evaluation,
    images: npt.NDArray[np.uint8],
    labels: IntArray,
    logits: torch.Tensor,
    facts: Mapping[str, str],
) -> None:
    """Write the page to `path`, whole or not at all.

    Args:
        evaluation: `summarize(logits, labels, class_names)`.
        images: (N, H, W, 3) uint8, as they are before the model's transform.
        labels: (N,) indices into the evaluation's class names.
        logits: (N, K).
        facts: what stands under the headline, for example model, weights, versions.

    Raises:
        UserError: if the folder of `path` cannot be written to.
    """
    probabilities: FloatArray = logits.double().softmax(1).numpy()  # (N, K)
    predicted: IntArray = probabilities.argmax(1)  # (N,)
    confidence: FloatArray = probabilities.max(1)  # (N,)
    chosen = choose_images(labels, predicted, confidence)
    wrong = int((labels[chosen] != predicted[chosen]).sum())
    right_ones = np.flatnonzero(labels == predicted)
    shown = int(right_ones[0]) if len(right_ones) else 0
    picture = Image.fromarray(images[shown])
    gates = collect_gates(model, eval_transform(model)(picture.convert(image_mode(model)))[None])
    page = PAGE.substitute(
        css=CSS,
        title=escape(title),
        top1=f"{evaluation.top1:.1%}",
        interval=(
            f"top-1 accuracy on {evaluation.n:,} images, 95% interval "
            f"{evaluation.top1_low:.1%} to {evaluation.top1_high:.1%}"
        ),
        tiles=_definitions(_tiles(evaluation)),
        facts=_definitions(facts, wrap=False),
        grid_note=(
            f"{wrong} of {round(evaluation.n * (1 - evaluation.top1))} wrong ones (✗, dashed frame), every kind of "
            f"mistake once before any twice, then {len(chosen) - wrong} right ones (✓) with the confidence."
        ),
        grid=grid_html(chosen, images, labels, predicted, confidence, evaluation.class_names),
        rows="\n".join(
            _row(score.name, score.recall, score.precision, score.f1, score.support) for score in evaluation.per_class
        ),
        confusion=confusion_picture(evaluation),
        ece=f"{evaluation.ece:.3f}",
        reliability=reliability_picture(evaluation, probabilities, labels),
        gates=_gates_html(gates, images[shown], evaluation.class_names[labels[shown]]),
    )
    write_text(path, page)


def _tiles(evaluation: Evaluation) -> dict[str, str]:
    return {
        f"top-{min(5, len(evaluation.class_names))}": f"{evaluation.top5:.1%}",
        "cross-entropy": f"{evaluation.loss:.3f}",
        "calibration error": f"{evaluation.ece:.3f}",
    }


def _definitions(items: Mapping[str, str], *, wrap: bool = True) -> str:
    start, end = ("<div>", "</div>") if wrap else ("", "")
    return "\n".join(f"{start}<dt>{escape(key)}</dt><dd>{escape(value)}</dd>{end}" for key, value in items.items())


def _row(name: str, recall: float, precision: float, f1: float, support: int) -> str:
    cells = f'<td class="bar" style="--share:{recall:.1%}">{recall:.1%}</td><td>{precision:.1%}</td><td>{f1:.1%}</td>'
    return f'<tr><th scope="row">{escape(name)}</th>{cells}<td>{support:,}</td></tr>'


def _gates_html(layers: list[LayerGates], image: npt.NDArray[np.uint8], name: str) -> str:
    """A heat strip for each layer, beside the image (H, W, 3) that they belong to."""
    if not layers:
        return '<p class="soft">This model has no attention layer with channel gates.</p>'
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
        f'<p class="soft">What each attention layer multiplies its channels by for one image, from the first layer '
        f"(top) to the last; one column a channel.</p>"
        f'<div class="gates"><figure><img src="{png_uri(image)}" alt="the image: {escape(name)}">'
        f"<figcaption>{escape(name)}</figcaption></figure>"
        f'<div class="strips">{"".join(rows)}'
        f'<span>scale</span><img class="scale" src="{scale}" alt="colour scale from 0 to {top:g}">'
        f'<span></span><span></span><span class="ends"><span>0, closed</span><span>{top:g}</span></span></div></div>'
    )


def _strip(values: npt.NDArray[np.float32]) -> str:
    """`values` (C,) between 0 and 1 as an image one pixel high."""
    colors = mpl.colormaps["viridis"](np.clip(values, 0, 1), bytes=True)[None, :, :3]  # (1, C, 3)
    return png_uri(np.ascontiguousarray(colors))
