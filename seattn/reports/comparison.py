"""The sections on several runs: how their recipes differ, and how their predictions differ on the same images.

Shapes: K classes.
"""

from collections.abc import Sequence
from statistics import fmean, stdev

import numpy as np
from scipy.stats import false_discovery_control

from seattn.evaluation.scoring import FloatArray
from seattn.evaluation.statistics import (
    ImageDifference,
    changed_pairs,
    confused_pairs,
    hardest_class,
    paired_difference,
)
from seattn.reports.images import SHOWN, changed_images, images_plot
from seattn.reports.page import FOLD, Bar, Bold, Folded, Group, Page, Part, Table, Text, count
from seattn.reports.plots import differences_plot, one_class_plot
from seattn.reports.runs import FinishedRun, RunGroup, differences, value_text
from seattn.reports.sections import confusions

_OTHERS = 6  # classes that the hardest one is compared with
_PAIRS = 8


def add_runs(page: Page, groups: Sequence[RunGroup]) -> None:
    """One row for each group, and the keys in which the recipes differ."""
    tested = any(group.test_top1s for group in groups)
    rows = []
    for group in groups:
        params = [float(score.params) for score in group.scores] or _logged_params(group)
        rows.append(
            [
                group.label,
                ", ".join(str(run.recipe.seed) for run in group.runs),
                *([tested_text(group) or "not tested"] if tested else []),
                top1_text(group),
                _range_text(params),
                " and ".join(dict.fromkeys(_epochs_text(run) for run in group.runs)),
                _range_text([run.seconds / 60 for run in group.runs if run.seconds is not None]),
            ]
        )
    test_column = ["test top-1, as recorded"] if tested else []
    parts: list[Part] = [Table(["runs", "seeds", *test_column, "top-1", "parameters", "epochs", "training, min"], rows)]
    keys = differences([group.runs[0].recipe for group in groups])
    if keys:
        changed = [[key, *(value_text(value) for value in values)] for key, values in keys.items()]
        head = ("key", *(group.label for group in groups))
        parts.append(Text("What differs in the recipes", "h3"))
        parts.append(Table(head, changed, words=range(1, len(head)), keys=True))
    elif len(groups) > 1:
        parts.append(Text("The recipes and seeds are equal."))
    page.add("Runs", *parts)


def top1_text(group: RunGroup) -> str:
    """The accuracy on the page's images with its interval, or mean and standard deviation over the seeds.

    Without such images, the held-out accuracy in the log.
    """
    if len(group.scores) == 1:
        evaluation = group.scores[0].evaluation
        return f"{evaluation.top1:.2%} ({evaluation.top1_low:.2%} to {evaluation.top1_high:.2%})"
    if group.scores:
        return _mean_text(group.top1s)
    logged = [run.history[-1]["eval_top1"] / 100 for run in group.runs if run.holds_out]
    return f"{_mean_text(logged)}, held out, as logged" if logged else "no images held out"


def tested_text(group: RunGroup) -> str:
    """The test accuracy that the runs recorded, as mean and standard deviation over the seeds; "" if there is none."""
    return _mean_text(group.test_top1s) if group.test_top1s else ""


def _mean_text(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.2%}"
    return f"{fmean(values):.2%} ± {stdev(values):.2%} (n = {len(values)})"


def add_class_changes(page: Page, groups: Sequence[RunGroup]) -> None:
    """The recall of each class in every group, and its difference from the first group."""
    before, others = groups[0], groups[1:]
    labels, names = before.scores[0].labels, before.scores[0].evaluation.class_names
    recall = [group.confusion.diagonal() / np.maximum(group.confusion.sum(1), 1) for group in groups]  # (K,) each
    order = sorted(np.unique(labels).tolist(), key=lambda k: float(recall[0][k]))
    changes = {
        group.label: [paired_difference(before.correct[:, labels == k], group.correct[:, labels == k]) for k in order]
        for group in others
    }
    significant = {label: _significant(rows) for label, rows in changes.items()}
    rows = []
    for place, k in enumerate(order):
        cells: list[str | Bar | Bold] = [names[k], f"{int((labels == k).sum()):,}"]
        cells += [Bar(float(values[k]), f"{values[k]:.1%}") for values in recall]
        for label, by_class in changes.items():
            text = _difference_text(by_class[place])
            cells.append(Bold(text) if significant[label][place] else text)
        rows.append(cells)
    shown = FOLD + 3
    drawn = {label: by_class[:shown] for label, by_class in changes.items()}
    plot = differences_plot([names[k] for k in order[:shown]], drawn, before.label)
    head = ["class", "images", *(f"recall, {group.label}" for group in groups)]
    head += ["change, points"] if len(others) == 1 else [f"change, {group.label}" for group in others]
    text = "Change of recall in percentage points, on the same images. "
    if all(len(group.scores) == 1 for group in groups):
        text += (
            "The 95% interval is Newcombe's, p is McNemar's exact p. Bold: a change at a false discovery rate of 5% "
            "over the classes."
        )
    else:
        text += (
            "The 95% interval is a bootstrap over the images: it holds for these runs, and does not contain the "
            "changes that other seeds would make."
        )
    page.add(
        "Classes, hardest first",
        page.figure("class-changes", plot, wide=True),
        Table(head, rows, fold="classes"),
        note=text,
    )


def _significant(rows: Sequence[ImageDifference]) -> list[bool]:
    """Whether the change of each class is more than chance, at a false discovery rate of 5 % over all classes."""
    p = [row.p for row in rows if row.p is not None]
    if len(p) < len(rows):
        return [False] * len(rows)
    return [bool(q < 0.05) for q in false_discovery_control(p)]


def _difference_text(row: ImageDifference) -> str:
    text = f"{100 * row.change:+.1f} ({100 * row.low:+.1f} to {100 * row.high:+.1f})"
    return text if row.p is None else f"{text}, p {row.p:.2g}"


def add_one_class(page: Page, groups: Sequence[RunGroup], class_name: str | None) -> None:
    """The confusions of one class in every group: of `class_name`, or of the class with the lowest recall."""
    names = groups[0].scores[0].evaluation.class_names
    matrices = [group.confusion for group in groups]  # (K, K) each
    k = hardest_class(matrices[0]) if class_name is None else names.index(class_name)
    shares = [_shares(matrix, k) for matrix in matrices]
    total = np.sum([forward + backward for forward, backward in shares], axis=0)  # (K,)
    total[k] = 0
    others = [int(i) for i in np.argsort(-total, kind="stable")[:_OTHERS] if total[i] > 0]
    if not others:
        return
    by_label = {
        group.label: (forward[others], backward[others])
        for group, (forward, backward) in zip(groups, shares, strict=True)
    }
    recalls = ", ".join(
        f"{matrix[k, k] / max(matrix[k].sum(), 1):.1%} in {group.label}"
        for group, matrix in zip(groups, matrices, strict=True)
    )
    title = f"The hardest class: {names[k]}" if class_name is None else f"One class: {names[k]}"
    plot = one_class_plot(names[k], [names[i] for i in others], by_label, title)
    rows = [
        [names[i], *(count(matrix[k, i]) for matrix in matrices), *(count(matrix[i, k]) for matrix in matrices)]
        for i in others
    ]
    suffixes = [f", {group.label}" if len(groups) > 1 else "" for group in groups]
    head = [
        "class",
        *(f"{names[k]} taken for this class{suffix}" for suffix in suffixes),
        *(f"this class taken for {names[k]}{suffix}" for suffix in suffixes),
    ]
    text = f"The recall of {names[k]} is {recalls}"
    text += f"; it is the lowest of {groups[0].label}." if class_name is None else "."
    figure = page.figure("hardest-class", plot, wide=True)
    page.add(title, figure, Folded("as numbers", [Table(head, rows)]), note=text)


def _shares(matrix: FloatArray, k: int) -> tuple[FloatArray, FloatArray]:
    """The share of class k's images taken for each class, and the share of each class' images taken for k; (K,)."""
    support = np.maximum(matrix.sum(1), 1)
    return matrix[k] / support[k], matrix[:, k] / support


def add_pair_changes(page: Page, groups: Sequence[RunGroup]) -> None:
    """The pairs of classes whose confusions changed most, and those most confused."""
    names = groups[0].scores[0].evaluation.class_names
    before, parts = groups[0], list[Part]()
    for group in groups[1:]:
        rows = []
        for old, new in changed_pairs(before.confusion, group.confusion)[:_PAIRS]:
            change = new.total - old.total
            rows.append(
                [
                    f"{names[old.first]} and {names[old.second]}",
                    count(old.total),
                    count(new.total),
                    f"{'+' if change > 0 else '−'}{count(abs(change))}",
                    f"{count(old.forward)} → {count(new.forward)}",
                    f"{count(old.backward)} → {count(new.backward)}",
                ]
            )
        head = ("pair", before.label, group.label, "change", "first for second", "second for first")
        if len(groups) > 2:
            parts.append(Text(group.label, "h3"))
        parts.append(Table(head, rows) if rows else Text("No pair changed."))
    top = confused_pairs(before.confusion)[:3]
    most = ", ".join(f"{names[pair.first]} and {names[pair.second]} ({count(pair.total)})" for pair in top)
    text = f"Images taken for the other class, both directions together. Most frequent in {before.label}: {most}."
    page.add("Pairs that changed most", *parts, note=text)


def add_image_changes(page: Page, groups: Sequence[RunGroup]) -> None:
    """Images that are right in one group and wrong in the other, by the first scored run of each group."""
    before = groups[0]
    for number, group in enumerate(groups[1:], 2):
        parts: list[Part] = []
        for gained, heading, file in (
            (True, "Wrong before, right now", "gained"),
            (False, "Right before, wrong now", "lost"),
        ):
            pictures, total = changed_images(before.scores[0], group.scores[0], gained=gained)
            parts.append(Text(f"{heading}: {total:,}", "h3"))
            if pictures:
                parts.append(Group("grid", pictures))
                name = f"{file}-{number}" if len(groups) > 2 else file
                page.plots[name] = images_plot(pictures, f"{heading}: {group.label}")
        seeds = f"; seeds {before.scored[0].recipe.seed} and {group.scored[0].recipe.seed}" if _seeds(groups) else ""
        text = f"{group.label} against {before.label}{seeds}: the most confident mistakes first, at most {SHOWN}."
        page.add("Images that changed", *parts, note=text)


def add_each(page: Page, groups: Sequence[RunGroup]) -> None:
    """Confusions and calibration of every group; those after the second group are folded away."""
    parts: list[Part] = []
    for number, group in enumerate(groups, 1):
        name = f"{group.label}, seed {group.scored[0].recipe.seed}" if _seeds(groups) else group.label
        figures = confusions(page, group.scores[0], name, f"-{number}")
        parts += [Text(name, "h3"), figures] if number <= 2 else [Folded(name, [figures])]
    page.add("Confusions and calibration", *parts)


def overall(groups: Sequence[RunGroup]) -> list[ImageDifference]:
    """The difference of each group after the first from the first, on all images."""
    return [paired_difference(groups[0].correct, group.correct) for group in groups[1:]]


def _seeds(groups: Sequence[RunGroup]) -> bool:
    return any(len(group.runs) > 1 for group in groups)


def _epochs_text(run: FinishedRun) -> str:
    done = len(run.history)
    return str(done) if run.has_weights else f"{done} of {run.planned}, no weights"


def _logged_params(group: RunGroup) -> list[float]:
    return [float(run.result.params) for run in group.runs if run.result is not None]


def _range_text(values: Sequence[float]) -> str:
    if not values:
        return "not known"
    digits = ",.0f" if min(values) >= 10 else ",.1f"
    low, high = format(min(values), digits), format(max(values), digits)
    return low if low == high else f"{low} to {high}"
