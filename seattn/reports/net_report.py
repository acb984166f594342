"""One HTML page on what a model does on a set of images, those of a run's test split too; it needs no other file.

Shapes: N images, K classes, C channels, H x W pixels.
"""

import platform
from collections.abc import Mapping
from html import escape
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import timm
import torch
from PIL import Image
from torch import nn

from seattn.core.files import write_text
from seattn.core.rows import AccuracyRow
from seattn.data.folders import find_split, leave_out_unreadable, list_files
from seattn.data.images import read_image
from seattn.data.transforms import eval_transform, image_mode
from seattn.evaluation.figures import confusion_plot, reliability_plot
from seattn.evaluation.gates import collect_gates
from seattn.evaluation.prediction import batches_as_seen, predict_logits
from seattn.evaluation.scoring import Evaluation, FloatArray, IntArray, match_classes, summarize
from seattn.models.load import DIR_PREFIX, load_model
from seattn.reports.images import choose_images, gates_html, grid_html
from seattn.reports.page import CSS, FRAME, HEAD, SECTIONS, definitions


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


def write_run_report(run: Path, root: Path, row: AccuracyRow, device: str, *, skip_bad: bool) -> Path:
    """Write `run`/report.html, on the test split of `root`, from the weights as the run exported them."""
    model = load_model(f"{DIR_PREFIX}{run}", device=device)
    files = list_files(find_split(root, "test"))
    if skip_bad:
        files = leave_out_unreadable(files, "test", warn=False)
    outputs, names = match_classes(files.class_names, model)
    labels = np.array(outputs)[files.labels.numpy()]  # (N,)
    pictures: list[np.ndarray] = []
    images = (read_image(path, image_mode(model)) for path in files.paths)
    logits = predict_logits(model, batches_as_seen(model, images, pictures))  # (N, K)
    path = run / "report.html"
    write_report(
        path,
        title=f"{row.name} on {row.dataset}",
        model=model,
        evaluation=summarize(logits, labels, names),
        images=np.stack(pictures),
        labels=labels,
        logits=logits,
        facts={
            "model": f"{row.name}, {row.params:,} parameters, {len(names)} classes",
            "weights": str(run / "model.safetensors"),
            "images": f"the test split in {root / 'test'}, as the net sees them; it took no part in the training",
            "training": (
                f"{row.epochs} epochs on {row.train_images:,} images, {row.held_out_images:,} held out to choose by, "
                f"seed {row.seed}; recipe in {run / 'recipe.yaml'}"
            ),
            "versions": (
                f"seattn {version('seattn')}, timm {timm.__version__}, torch {torch.__version__}, "
                f"Python {platform.python_version()}"
            ),
        },
    )
    return path
