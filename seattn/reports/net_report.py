"""One HTML page on what a model does on a set of images; it needs no other file and no network.

Shapes: N images, K classes, C channels, H x W pixels.
"""

from collections.abc import Mapping
from html import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from seattn._report_gates import collect_gates
from seattn._report_grid import choose_images, grid_html
from seattn._report_page import CSS, FRAME, HEAD, SECTIONS, definitions
from seattn._report_plots import confusion_plot, reliability_plot
from seattn._report_strips import gates_html
from seattn.core.files import write_text
from seattn.evaluation.prediction import eval_transform, image_mode
from seattn.evaluation.scoring import Evaluation, FloatArray, IntArray


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
    head = HEAD.substitute(
        top1=f"{evaluation.top1:.1%}",
        interval=(
            f"top-1 accuracy on {evaluation.n:,} images, 95% interval "
            f"{evaluation.top1_low:.1%} to {evaluation.top1_high:.1%}"
        ),
        tiles=definitions(_tiles(evaluation)),
        facts=definitions(facts, wrap=False),
    )
    sections = SECTIONS.substitute(
        grid_note=(
            f"{wrong} of {round(evaluation.n * (1 - evaluation.top1))} wrong ones (✗, dashed frame), every kind of "
            f"mistake once before any twice, then {len(chosen) - wrong} right ones (✓) with the confidence."
        ),
        grid=grid_html(chosen, images, labels, predicted, confidence, evaluation.class_names),
        rows="\n".join(
            _row(score.name, score.recall, score.precision, score.f1, score.support) for score in evaluation.per_class
        ),
        confusion=confusion_plot(evaluation).html(),
        ece=f"{evaluation.ece:.3f}",
        reliability=reliability_plot(evaluation, probabilities, labels).html(),
        gates=gates_html(gates, images[shown], evaluation.class_names[labels[shown]]),
    )
    write_text(path, FRAME.substitute(css=CSS, title=escape(title), head=head, sections=sections))


def _tiles(evaluation: Evaluation) -> dict[str, str]:
    return {
        f"top-{min(5, len(evaluation.class_names))}": f"{evaluation.top5:.1%}",
        "cross-entropy": f"{evaluation.loss:.3f}",
        "calibration error": f"{evaluation.ece:.3f}",
    }


def _row(name: str, recall: float, precision: float, f1: float, support: int) -> str:
    cells = f'<td class="bar" style="--share:{recall:.1%}">{recall:.1%}</td><td>{precision:.1%}</td><td>{f1:.1%}</td>'
    return f'<tr><th scope="row">{escape(name)}</th>{cells}<td>{support:,}</td></tr>'
