"""The sections on one net: its classes, its confusions, its calibration, its worst images.

Shapes: K classes.
"""

from collections.abc import Sequence

import numpy as np

from seattn.evaluation.figures import confusion_plot, reliability_plot
from seattn.evaluation.scoring import Evaluation, Scores
from seattn.evaluation.statistics import confused_pairs
from seattn.reports.images import images_plot, pair_images, worst_images
from seattn.reports.page import FOLD, Bar, Folded, Group, Page, Part, Picture, Row, Table, Text
from seattn.reports.plots import classes_plot, curves_plot
from seattn.reports.runs import RunGroup, changed_keys, value_text

PAIRS = 5


def score_tiles(evaluation: Evaluation) -> dict[str, str]:
    """The scores of a page beside its headline."""
    return {
        f"top-{min(5, len(evaluation.class_names))}": f"{evaluation.top5:.1%}",
        "cross-entropy": f"{evaluation.loss:.3f}",
        "calibration error": f"{evaluation.ece:.3f}",
    }


def score_text(evaluation: Evaluation) -> str:
    """The sentence beside the accuracy."""
    interval = f"{evaluation.top1_low:.1%} to {evaluation.top1_high:.1%}"
    return f"top-1 accuracy on {evaluation.n:,} images, 95% interval {interval}"


def add_training(page: Page, groups: Sequence[RunGroup]) -> None:
    """The curves of loss, accuracy and learning rate."""
    text = "Training loss is the recipe's own, with its smoothing, mixing and weights, on augmented images."
    if not any(run.holds_out for group in groups for run in group.runs):
        text += " No images were held out, so that no accuracy was measured during the training."
    page.add("Training", page.figure("curves", curves_plot(groups), wide=True), note=text)


def add_classes(page: Page, scores: Scores, name: str) -> None:
    """Recall and precision of each class, the hardest class first, and the classes that it is taken for."""
    evaluation = scores.evaluation
    ordered = sorted(evaluation.per_class, key=lambda score: (score.recall, score.precision))
    rows: list[Row] = []
    for score in ordered:
        low, high = score.recall_interval
        rows.append(
            [
                score.name,
                Bar(score.recall, f"{score.recall:.1%}"),
                f"{low:.1%} to {high:.1%}",
                f"{score.precision:.1%}",
                f"{score.f1:.1%}",
                f"{score.support:,}",
                _taken_for(evaluation, score.name),
            ]
        )
    head = ("class", "recall", "95% interval", "precision", "F1", "images", "most often taken for")
    page.add(
        "Classes, hardest first",
        page.figure("classes", classes_plot(ordered[: FOLD + 3], name), wide=True),
        Table(head, rows, words=(6,), fold="classes"),
        note=(
            "Recall: the share of the images of a class that are found. Precision: the share of right images among "
            "all images that are predicted as the class."
        ),
    )


def _taken_for(evaluation: Evaluation, name: str) -> str:
    mistakes = [
        (other, count)
        for other, count in zip(
            evaluation.class_names, evaluation.confusion[evaluation.class_names.index(name)], strict=True
        )
        if other != name and count
    ]
    return ", ".join(f"{other} {count}" for other, count in sorted(mistakes, key=lambda mistake: -mistake[1])[:3])


def confusions(page: Page, scores: Scores, name: str, suffix: str = "") -> Group:
    """The confusion matrix and the reliability diagram, side by side."""
    evaluation = scores.evaluation
    return Group(
        "pair",
        (
            Group(
                "",
                (
                    Text("Confusions", "h4"),
                    Text(
                        "Rows are true classes. Blue: share of a class that is right; orange: mistakes, on a scale of "
                        "their own that ends at the most frequent one."
                    ),
                    page.figure(f"confusion{suffix}", confusion_plot(evaluation, name=name)),
                ),
            ),
            Group(
                "",
                (
                    Text("Calibration", "h4"),
                    Text(
                        "The share of right images among those of a confidence. The expected calibration error, the "
                        f"mean gap, is {evaluation.ece:.3f}{_temperature_text(scores)}."
                    ),
                    page.figure(f"reliability{suffix}", reliability_plot(evaluation, name=name)),
                ),
            ),
        ),
    )


def _temperature_text(scores: Scores) -> str:
    if scores.temperature == 1:
        return ""
    return f" with the temperature {scores.temperature:.3f}, and {scores.uncalibrated_ece:.3f} without it"


def add_pairs(page: Page, scores: Scores, name: str) -> None:
    """The pairs of classes that are taken for each other most often, with images of each."""
    evaluation = scores.evaluation
    pairs = confused_pairs(np.array(evaluation.confusion, dtype=np.float64))[:PAIRS]
    if not pairs:
        return page.add("Hardest pairs", note="No image is taken for another class.")
    names, parts, sheet = evaluation.class_names, list[Part](), list[Picture]()
    for pair in pairs:
        a, b = names[pair.first], names[pair.second]
        images_a, images_b = sum(evaluation.confusion[pair.first]), sum(evaluation.confusion[pair.second])
        text = (
            f"{pair.total:,.0f} images: {a} taken for {b} {pair.forward:,.0f} of {images_a:,}, "
            f"{b} for {a} {pair.backward:,.0f} of {images_b:,}."
        )
        pictures = pair_images(scores, pair)
        sheet += pictures
        parts += [Text(f"{a} and {b}", "h3"), Text(text), Group("grid", pictures)]
    page.plots["hardest-pairs"] = images_plot(sheet, f"Hardest pairs: {name}")
    note = "Both directions are counted together; the pictures are the mistakes with the highest confidence."
    page.add("Hardest pairs", *parts, note=note)


def add_worst(page: Page, scores: Scores, name: str) -> None:
    """The mistakes with the highest confidence."""
    pictures = worst_images(scores)
    wrong = int((~scores.correct).sum())
    if not pictures:
        return page.add("Worst images", note="Every image is right.")
    page.plots["worst-images"] = images_plot(pictures, f"Surest mistakes: {name}")
    text = f"The {len(pictures)} of {wrong:,} mistakes with the highest confidence."
    page.add("Worst images", Group("grid", pictures), note=text)


def add_recipe(page: Page, groups: Sequence[RunGroup]) -> None:
    """The keys of each recipe that differ from the defaults."""
    parts = []
    for group in groups:
        keys = changed_keys(group.runs[0].recipe)
        if len(group.runs) > 1:
            keys["seed"] = ", ".join(str(run.recipe.seed) for run in group.runs)
        rows = [[key, value_text(value)] for key, value in keys.items()]
        summary = "Recipe" if len(groups) == 1 else f"Recipe: {group.label}"
        parts.append(Folded(summary, [Table(("key", "value"), rows, words=(1,), keys=True)]))
    page.add("Recipes" if len(groups) > 1 else "", *parts)
