"""The sections on one net: its classes, its confusions, its calibration, its worst images.

Shapes: K classes.
"""

from collections.abc import Sequence
from html import escape

import numpy as np

from seattn.evaluation.figures import confusion_plot, reliability_plot
from seattn.evaluation.scoring import ClassScore, Evaluation, wilson_interval
from seattn.evaluation.statistics import confused_pairs
from seattn.reports.images import Shown, images_html, images_plot, pair_images, worst_images
from seattn.reports.page import FOLD, Pages, bar, folded, table
from seattn.reports.plots import classes_plot
from seattn.reports.runs import Group, Scores, changed_keys, value_text

PAIRS = 5


def hardest_first(evaluation: Evaluation) -> list[ClassScore]:
    """The classes by recall, the lowest first."""
    return sorted(evaluation.per_class, key=lambda score: (score.recall, score.precision))


def add_classes(pages: Pages, scores: Scores, name: str, file: str = "classes") -> None:
    """Precision and recall, the hardest class first, with what each is taken for."""
    evaluation = scores.evaluation
    ordered = hardest_first(evaluation)
    rows = []
    for score in ordered:
        low, high = wilson_interval(round(score.recall * score.support), score.support)
        rows.append(
            [
                escape(score.name),
                bar(score.recall, f"{score.recall:.1%}"),
                f"{low:.1%} to {high:.1%}",
                f"{score.precision:.1%}",
                f"{score.support:,}",
                escape(_taken_for(evaluation, score.name)),
            ]
        )
    plot = pages.figure(file, classes_plot(ordered[: FOLD + 3], name), wide=True)
    head = ("class", "recall", "95% interval", "precision", "images", "most often taken for")
    pages.add(
        "Classes, hardest first",
        plot,
        table(head, rows, fold="classes", text=(5,)),
        note="Recall: the share of a class that is found. Precision: the share of right ones among what is called so.",
    )


def _taken_for(evaluation: Evaluation, name: str) -> str:
    index = evaluation.class_names.index(name)
    found = [
        (number, other)
        for other, number in zip(evaluation.class_names, evaluation.confusion[index], strict=True)
        if other != name and number
    ]
    return ", ".join(f"{other} {number}" for number, other in sorted(found, key=lambda one: -one[0])[:3])


def confusions_html(pages: Pages, scores: Scores, name: str, suffix: str = "") -> str:
    """The confusion matrix and the reliability diagram, side by side."""
    evaluation = scores.evaluation
    confusion = pages.figure(f"confusion{suffix}", confusion_plot(evaluation, name=name))
    reliability = reliability_plot(evaluation, scores.probabilities, scores.labels, name=name)
    return (
        '<div class="pair"><section><h4>Confusions</h4><p class="soft">Rows are true classes. Blue: share of a class '
        "that is right; orange: mistakes, on a scale of their own that ends at the most frequent one.</p>"
        f'{confusion}</section><section><h4>Calibration</h4><p class="soft">Of the images given a confidence, how many '
        f"are right. The expected calibration error, the mean gap, is {evaluation.ece:.3f}.</p>"
        f"{pages.figure(f'reliability{suffix}', reliability)}</section></div>"
    )


def add_pairs(pages: Pages, scores: Scores, name: str) -> None:
    """The pairs of classes that are taken for each other most often, with images of each."""
    evaluation = scores.evaluation
    pairs = confused_pairs(np.array(evaluation.confusion, dtype=np.float64))[:PAIRS]
    if not pairs:
        return pages.add("Hardest pairs", note="No image is taken for another class.")
    names, parts, sheet = evaluation.class_names, [], list[Shown]()
    for pair in pairs:
        a, b = names[pair.first], names[pair.second]
        of_a, of_b = sum(evaluation.confusion[pair.first]), sum(evaluation.confusion[pair.second])
        text = (
            f"{pair.total:,.0f} images: {a} taken for {b} {pair.forward:,.0f} of {of_a:,}, "
            f"{b} for {a} {pair.backward:,.0f} of {of_b:,}."
        )
        shown = pair_images(scores, pair)
        sheet += shown
        parts.append(f'<h3>{escape(f"{a} and {b}")}</h3><p class="soft">{escape(text)}</p>{images_html(shown)}')
    pages.keep("hardest-pairs", images_plot(sheet, f"Hardest pairs: {name}"))
    pages.add("Hardest pairs", *parts, note="Both directions counted together; the surest mistakes of each.")


def add_worst(pages: Pages, scores: Scores, name: str) -> None:
    """The surest mistakes."""
    shown = worst_images(scores)
    wrong = int((~scores.correct).sum())
    if not shown:
        return pages.add("Worst images", note="Every image is right.")
    pages.keep("worst-images", images_plot(shown, f"Surest mistakes: {name}"))
    text = f"The {len(shown)} of {wrong:,} mistakes that the net was most sure of, with its confidence."
    pages.add("Worst images", images_html(shown), note=text)


def add_recipe(pages: Pages, groups: Sequence[Group]) -> None:
    """The keys of each recipe that differ from the defaults."""
    parts = []
    for group in groups:
        keys = changed_keys(group.runs[0].recipe)
        if len(group.runs) > 1:
            keys["seed"] = ", ".join(str(run.recipe.seed) for run in group.runs)
        rows = [[escape(key), escape(value_text(value))] for key, value in keys.items()]
        heading = "Recipe" if len(groups) == 1 else f"Recipe: {group.label}"
        parts.append(folded(heading, table(("key", "value"), rows, text=(1,))))
    pages.add("Recipes" if len(groups) > 1 else "", *parts)
