"""The sections on several runs: what differs in their recipes, and what that changes on the same images.

Shapes: K classes.
"""

from collections.abc import Sequence
from html import escape
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
from seattn.reports.images import SHOWN, changed_images, images_html, images_plot
from seattn.reports.page import FOLD, Pages, bar, count, folded, table
from seattn.reports.plots import differences_plot, one_class_plot
from seattn.reports.runs import FinishedRun, Group, differences, value_text
from seattn.reports.sections import confusions_html

_OTHERS = 6  # classes that the hardest one is compared with
_PAIRS = 8


def add_runs(pages: Pages, groups: Sequence[Group]) -> None:
    """One row a group, and the keys in which the recipes differ."""
    head = ("", "seeds", "top-1", "parameters", "epochs", "training, min")
    rows = []
    for group in groups:
        rows.append(
            [
                escape(group.label),
                ", ".join(str(run.recipe.seed) for run in group.runs),
                escape(group_top1(group)),
                _span([float(score.params) for score in group.scores] or _logged_params(group)),
                " and ".join(dict.fromkeys(_epochs(run) for run in group.runs)),
                _span([run.seconds / 60 for run in group.runs if run.seconds is not None]),
            ]
        )
    keys = differences([group.runs[0].recipe for group in groups])
    parts = [table(head, rows)]
    if keys:
        changed = [[escape(key), *(escape(value_text(value)) for value in values)] for key, values in keys.items()]
        columns = tuple(range(1, len(groups) + 1))
        parts.append("<h3>What differs in the recipes</h3>")
        parts.append(table(("key", *(group.label for group in groups)), changed, text=columns))
    elif len(groups) > 1:
        parts.append('<p class="soft">The recipes and seeds are equal.</p>')
    pages.add("Runs", *parts)


def group_top1(group: Group) -> str:
    """Accuracy with its interval, or mean and standard deviation over the seeds; as logged where nothing is scored."""
    if len(group.scores) == 1:
        found = group.scores[0].evaluation
        return f"{found.top1:.2%} ({found.top1_low:.2%} to {found.top1_high:.2%})"
    logged = [run.history[-1]["eval_top1"] / 100 for run in group.runs]
    values, what = (group.top1s, "") if group.scores else (logged, ", held out, as logged")
    if len(values) == 1:
        return f"{values[0]:.2%}{what}"
    return f"{fmean(values):.2%} ± {stdev(values):.2%} (n = {len(values)}){what}"


def add_class_changes(pages: Pages, groups: Sequence[Group]) -> None:
    """Recall by class in every group, and the difference from the first."""
    before, afters = groups[0], groups[1:]
    evaluation = before.scores[0].evaluation
    labels, names = before.scores[0].labels, evaluation.class_names
    recall = [group.confusion.diagonal() / np.maximum(group.confusion.sum(1), 1) for group in groups]  # (K,) each
    order = sorted(np.unique(labels).tolist(), key=lambda k: float(recall[0][k]))
    found = {
        group.label: [paired_difference(before.correct[:, labels == k], group.correct[:, labels == k]) for k in order]
        for group in afters
    }
    sure = {label: _sure(rows) for label, rows in found.items()}
    rows = []
    for place, k in enumerate(order):
        cells = [escape(names[k]), f"{int((labels == k).sum()):,}"]
        cells += [bar(float(one[k]), f"{one[k]:.1%}") for one in recall]
        for label, differ in found.items():
            cells.append(_difference_cell(differ[place], sure=sure[label][place]))
        rows.append(cells)
    shown = slice(0, FOLD + 3)
    plot = differences_plot(
        [names[k] for k in order[shown]], {label: rows[shown] for label, rows in found.items()}, before.label
    )
    head = ("class", "images", *(f"recall, {group.label}" for group in groups))
    change = ("change, points",) if len(afters) == 1 else tuple(f"change, {group.label}" for group in afters)
    single = all(len(group.scores) == 1 for group in groups)
    text = (
        "Change of recall in percentage points, on the same images. "
        "p and the 95% interval are McNemar's, exact. Bold: sure at a false discovery rate of 5% over the classes."
        if single
        else "Change of recall in percentage points, with the 95% interval of a bootstrap over the same images. "
        "It holds for these runs: it does not contain what other seeds would change."
    )
    pages.add(
        "Classes, hardest first",
        pages.figure("class-changes", plot, wide=True),
        table((*head, *change), rows, fold="classes"),
        note=text,
    )


def _sure(rows: Sequence[ImageDifference]) -> list[bool]:
    """Of each class whether its change is more than chance, at a false discovery rate of 5 % over all."""
    p = [row.p for row in rows if row.p is not None]
    if len(p) < len(rows):
        return [False] * len(rows)
    return [bool(q < 0.05) for q in false_discovery_control(p)]


def _difference_cell(one: ImageDifference, *, sure: bool) -> str:
    text = f"{100 * one.change:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f})"
    text += "" if one.p is None else f", p {one.p:.2g}"
    return f'<span class="sure">{text}</span>' if sure else text


def add_hardest_class(pages: Pages, groups: Sequence[Group], wanted: str | None) -> None:
    """What the class of the lowest recall, or the one that is `wanted`, is confused with in every group; alone too."""
    names = groups[0].scores[0].evaluation.class_names
    matrices = [group.confusion for group in groups]  # (K, K) each
    k = hardest_class(matrices[0]) if wanted is None else names.index(wanted)
    both = np.sum([_shares(one, k)[0] + _shares(one, k)[1] for one in matrices], axis=0)  # (K,)
    both[k] = 0
    others = [int(i) for i in np.argsort(-both, kind="stable")[:_OTHERS] if both[i] > 0]
    if not others:
        return
    shares = {
        group.label: (_shares(one, k)[0][others], _shares(one, k)[1][others])
        for group, one in zip(groups, matrices, strict=True)
    }
    recalls = ", ".join(
        f"{one[k, k] / max(one[k].sum(), 1):.1%} in {group.label}" for group, one in zip(groups, matrices, strict=True)
    )
    title = f"The hardest class: {names[k]}" if wanted is None else f"One class: {names[k]}"
    plot = one_class_plot(names[k], [names[i] for i in others], shares, title)
    rows = [
        [
            escape(names[i]),
            *(f"{count(one[k, i])}" for one in matrices),
            *(f"{count(one[i, k])}" for one in matrices),
        ]
        for i in others
    ]
    suffix = [f", {group.label}" if len(groups) > 1 else "" for group in groups]
    head = (
        "class",
        *(f"{names[k]} taken for it{one}" for one in suffix),
        *(f"it taken for {names[k]}{one}" for one in suffix),
    )
    text = f"The recall of {names[k]} is {recalls}"
    text += f"; it is the lowest of {groups[0].label}." if wanted is None else "."
    figure = pages.figure("hardest-class", plot, wide=True)
    pages.add(title, figure, folded("as numbers", table(head, rows)), note=text)


def _shares(matrix: FloatArray, k: int) -> tuple[FloatArray, FloatArray]:
    """Of class k's images the share taken for each class, and of each class' images the share taken for k; (K,)."""
    support = np.maximum(matrix.sum(1), 1)
    return matrix[k] / support[k], matrix[:, k] / support


def add_pair_changes(pages: Pages, groups: Sequence[Group]) -> None:
    """The pairs of classes whose confusions changed most, and those most confused."""
    names = groups[0].scores[0].evaluation.class_names
    before, parts = groups[0], list[str]()
    for group in groups[1:]:
        rows = []
        for old, new in changed_pairs(before.confusion, group.confusion)[:_PAIRS]:
            a, b = names[old.first], names[old.second]
            change = new.total - old.total
            rows.append(
                [
                    escape(f"{a} and {b}"),
                    count(old.total),
                    count(new.total),
                    f"{'+' if change > 0 else '−'}{count(abs(change))}",
                    escape(f"{count(old.forward)} → {count(new.forward)}"),
                    escape(f"{count(old.backward)} → {count(new.backward)}"),
                ]
            )
        head = ("pair", before.label, group.label, "change", "first for second", "second for first")
        title = f"<h3>{escape(group.label)}</h3>" if len(groups) > 2 else ""
        parts.append(title + (table(head, rows) if rows else '<p class="soft">No pair changed.</p>'))
    top = confused_pairs(before.confusion)[:3]
    most = ", ".join(f"{names[pair.first]} and {names[pair.second]} ({count(pair.total)})" for pair in top)
    text = f"Images taken for the other class, both directions together. Most frequent in {before.label}: {most}."
    pages.add("Pairs that changed most", *parts, note=text)


def add_image_changes(pages: Pages, groups: Sequence[Group]) -> None:
    """Images that are right in one and wrong in the other, by the first scored run of each group."""
    before = groups[0]
    for number, group in enumerate(groups[1:], 2):
        parts = []
        for gained, head, file in (
            (True, "Wrong before, right now", "gained"),
            (False, "Right before, wrong now", "lost"),
        ):
            shown, total = changed_images(before.scores[0], group.scores[0], gained=gained)
            part = f"<h3>{head}: {total:,}</h3>"
            if shown:
                part += images_html(shown)
                suffix = f"-{number}" if len(groups) > 2 else ""
                pages.keep(f"{file}{suffix}", images_plot(shown, f"{head}: {group.label}"))
            parts.append(part)
        seeds = f"; seeds {before.scored[0].recipe.seed} and {group.scored[0].recipe.seed}" if _seeds(groups) else ""
        text = f"{group.label} against {before.label}{seeds}: the surest mistakes first, at most {SHOWN}."
        pages.add("Images that changed", *parts, note=text)


def add_each(pages: Pages, groups: Sequence[Group]) -> None:
    """Confusions and calibration of every group; beyond two, folded."""
    parts = []
    for number, group in enumerate(groups, 1):
        seed = f", seed {group.scored[0].recipe.seed}" if _seeds(groups) else ""
        html = confusions_html(pages, group.scores[0], f"{group.label}{seed}", f"-{number}")
        name = f"{group.label}{seed}"
        parts.append(f"<h3>{escape(name)}</h3>{html}" if number <= 2 else folded(name, html))
    pages.add("Confusions and calibration", *parts)


def overall(groups: Sequence[Group]) -> list[ImageDifference]:
    """Of each group after the first its difference on all images."""
    return [paired_difference(groups[0].correct, group.correct) for group in groups[1:]]


def _seeds(groups: Sequence[Group]) -> bool:
    return any(len(group.runs) > 1 for group in groups)


def _epochs(run: FinishedRun) -> str:
    done = len(run.history)
    return str(done) if run.has_weights else f"{done} of {run.planned}, no weights"


def _logged_params(group: Group) -> list[float]:
    return [float(run.result.params) for run in group.runs if run.result is not None]


def _span(values: Sequence[float]) -> str:
    if not values:
        return "not known"
    digits = ",.0f" if min(values) >= 10 else ",.1f"
    low, high = format(min(values), digits), format(max(values), digits)
    return low if low == high else f"{low} to {high}"
