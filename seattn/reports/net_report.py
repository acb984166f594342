"""The page on one net: what it does on a set of labelled images, and its channel gates for one of them.

Shapes: N images, K classes.
"""

from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from torch import nn

from seattn.core.errors import counted
from seattn.core.rows import AccuracyRow
from seattn.data.transforms import eval_transform, image_mode
from seattn.evaluation.gates import collect_gates
from seattn.evaluation.scoring import Scores, score_images
from seattn.models.load import DIR_PREFIX, load_model
from seattn.reports.images import answer_picture, choose_images, gate_strips
from seattn.reports.page import Group, Headline, Page, Picture, versions
from seattn.reports.runs import group_runs, read_run
from seattn.reports.sections import add_classes, add_training, confusions, score_text, score_tiles
from seattn.training.finetuning import tested_files

NO_GATES = "This model has no attention layer with channel gates."


def write_report(
    path: Path,
    *,
    title: str,
    model: nn.Module,
    scores: Scores,
    facts: Mapping[str, str],
    run: Path | None = None,
) -> None:
    """Write the page to `path`, whole or not at all.

    Args:
        scores: the model's answers; its pictures are shown.
        facts: the lines below the headline by name, for example model, weights, versions.
        run: the folder of the training run, whose curves are shown.

    Raises:
        UserError: if the folder of `path` cannot be written to.
    """
    evaluation = scores.evaluation
    chosen = choose_images(scores)
    shown = int((~scores.correct[chosen]).sum())
    page = Page()
    page.add(
        "Images",
        Group("grid", [answer_picture(scores, i) for i in chosen]),
        note=(
            f"{shown} of {int((~scores.correct).sum())} wrong images (✗, dashed frame), each pair of true and "
            f"predicted class once before any pair twice, then {len(chosen) - shown} right images (✓) with the "
            "confidence."
        ),
    )
    add_classes(page, scores, title)
    page.add("Confusions and calibration", confusions(page, scores, title))
    _add_gates(page, model, scores)
    if run is not None:
        add_training(page, group_runs([read_run(run)], None))
    headline = Headline(
        number=f"{evaluation.top1:.1%}",
        text=score_text(evaluation),
        tiles=score_tiles(evaluation),
        facts={**facts, "versions": versions()},
    )
    page.write(path, title, headline)


def _add_gates(page: Page, model: nn.Module, scores: Scores) -> None:
    """The gates for the first image that is classified right, or for the first image."""
    index = int(scores.correct.argmax())
    pixels = scores.pictures[index]
    image = Image.fromarray(pixels).convert(image_mode(model))
    layers = collect_gates(model, eval_transform(model)(image)[None])
    if not layers:
        return page.add("Channel gates", note=NO_GATES)
    name = scores.evaluation.class_names[scores.labels[index]]
    page.add(
        "Channel gates",
        Group("gates", (Picture(pixels, f"the image: {name}", (name,)), gate_strips(layers))),
        note=(
            "The factors of each attention layer for one image, from the first layer (top) to the last; each column is "
            "a channel."
        ),
    )


def write_run_report(
    run: Path, root: Path, row: AccuracyRow, device: str, *, skip_bad: bool, progress: bool = False
) -> Path:
    """Write `run`/report.html about the exported weights of the run on the test split of `root`."""
    model = load_model(f"{DIR_PREFIX}{run}", device=device)
    files = tested_files(run, root, skip_bad=skip_bad)
    scores = score_images(model, files, progress="scoring the test split" if progress else "")
    path = run / "report.html"
    held_out = f"{row.held_out_images:,} held out to choose by" if row.held_out_images else "no images held out"
    write_report(
        path,
        title=f"{row.name} on {row.dataset or 'a folder of images'}",
        model=model,
        scores=scores,
        facts={
            "model": f"{row.name}, {row.params:,} parameters, {len(scores.evaluation.class_names)} classes",
            "weights": str(run / "model.safetensors"),
            "images": f"the test split in {root / 'test'}, after preprocessing; it took no part in the training",
            "training": (
                f"{counted(row.epochs, 'epoch')} on {row.train_images:,} images, {held_out}, seed {row.seed}; "
                f"recipe in {run / 'recipe.yaml'}"
            ),
        },
        run=run,
    )
    return path
