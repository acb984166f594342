"""The parts of a card that rows and classes fill, as Markdown.

Shapes: K classes.
"""

from collections.abc import Sequence
from statistics import mean, stdev

from seattn._card_facts import ClassResults, Facts
from seattn.evaluate import ClassScore, wilson_interval, worst_pairs
from seattn.rows import AccuracyRow

_ALL = 20  # classes that a table shows without folding
_HARDEST = 15
BINS = 15  # of `seattn.evaluate.calibration_bins`


def result_section(facts: Facts) -> str:
    """The scores of the weights and what they hold under; of all runs of the recipe, where there are several."""
    row = facts.row
    text = f"""## Result

| split | n | top-1 | 95 % interval | top-5 | loss | calibration error |
| --- | --- | --- | --- | --- | --- | --- |
| {f"{row.dataset} {row.split}".strip()} | {row.n:,} | {percent(row.top1)} | {interval(row)} | {percent(row.top5)} | \
{row.loss:.3f} | {percent(row.ece)} |

{_reading(facts)} Interval: Wilson. Calibration error: top label, 15 bins. {_scored(row)}
"""
    others = runs_of_recipe(facts)
    return text if len(others) < 2 else f"{text}\n{_seeds(row, others)}\n"


def runs_of_recipe(facts: Facts) -> list[AccuracyRow]:
    """A row a seed, the newest, of the runs that differ from that of the weights in the seed alone."""
    rows = {row.seed: row for row in facts.rows if row.recipe == facts.row.recipe}
    return [rows[seed] for seed in sorted(rows)]


def spread(rows: Sequence[AccuracyRow]) -> str:
    """Mean and standard deviation of top-1 over runs."""
    values = [100 * row.top1 for row in rows]
    return f"{mean(values):.2f} ± {stdev(values):.2f}"


def classes_section(classes: ClassResults, picture: str) -> str:
    """Each class's scores, the hardest first, the picture of confusions, and the most frequent ones."""
    scores = classes.per_class()
    if len(scores) <= _ALL:
        tables = f"Hardest first:\n\n{_table(scores)}"
    else:
        tables = f"The {_HARDEST} hardest of {len(scores)}:\n\n{_table(scores[:_HARDEST])}\n" + folded(
            f"The other {len(scores) - _HARDEST}", _table(scores[_HARDEST:])
        )
    numbered = " Both are numbered in the order of the outputs, from 0." if len(classes.class_names) > _ALL else ""
    pairs = [pair for pair in worst_pairs(classes.confusion, classes.class_names, 5) if pair[2] > 1]
    said = "; ".join(f"{true} taken for {predicted}, {count} ×" for true, predicted, count in pairs)
    return f"""## Classes

{tables}
![Confusion matrix: rows are true classes, columns predicted ones]({picture})

Rows are true classes, columns predicted ones.{numbered} Most frequent mistakes: {said or "none came twice"}.
"""


def folded(summary: str, text: str) -> str:
    """`text` behind a line that opens it."""
    return f"<details>\n<summary>{summary}</summary>\n\n{text.rstrip()}\n\n</details>\n"


def calibration_section(classes: ClassResults, row: AccuracyRow) -> str:
    """Whether the net is as right as it is sure, as a sentence and a table of bins."""
    n = classes.n
    sure = sum(count * confidence for count, confidence, _ in classes.bins) / n
    right = classes.correct / n
    gap = 100 * (sure - right)
    verdict = (
        "as sure as it is right"
        if abs(gap) < 0.5
        else "too sure of itself"
        if gap > 0
        else "less sure than it is right"
    )
    head = "| confidence | images | mean confidence | accuracy |\n| --- | --- | --- | --- |\n"
    table = head + "".join(
        f"| {100 * i / BINS:.0f} to {100 * (i + 1) / BINS:.0f} % | {count:,} | {percent(confidence)} | "
        f"{percent(accuracy)} |\n"
        for i, (count, confidence, accuracy) in enumerate(classes.bins)
        if count
    )
    return f"""## Calibration

The net is {verdict}: its mean confidence is {percent(sure)}, its accuracy {percent(right)}; expected calibration \
error {percent(row.ece)}.

{folded("By confidence", table)}"""


def percent(fraction: float) -> str:
    """In per cent with two places."""
    return f"{100 * fraction:.2f} %"


def interval(row: AccuracyRow) -> str:
    """The 95 % interval of top-1 in per cent."""
    return f"{100 * row.top1_low:.2f} to {100 * row.top1_high:.2f}"


def _table(scores: Sequence[ClassScore]) -> str:
    lines = "".join(
        f"| {_cell(score.name)} | {percent(score.recall)} | {_recall_interval(score)} | {percent(score.precision)} | "
        f"{percent(score.f1)} | {score.support:,} |\n"
        for score in scores
    )
    head = "| class | recall | 95 % interval | precision | F1 | images |\n| --- | --- | --- | --- | --- | --- |\n"
    return head + lines


def _cell(name: str) -> str:
    return name.replace("|", "\\|")


def _recall_interval(score: ClassScore) -> str:
    low, high = wilson_interval(round(score.recall * score.support), score.support)
    return f"{100 * low:.0f} to {100 * high:.0f}"


def _reading(facts: Facts) -> str:
    row = facts.row
    total = row.train_images + row.held_out_images
    if row.split != "test":
        return (
            f"One run, seed {row.seed}, scored on the {row.held_out_images:,} images of {total:,} that were held out "
            "to choose by: the score is a little too good. No test split was read."
        )
    # A row without a recipe is of one that has changed since; a user's own run has no other rows.
    before = [other for other in facts.rows if row.recipe and not other.recipe and other.split == row.split]
    said = [
        f"An earlier form of the recipe, of {other.epochs} epochs, had scored {percent(other.top1)} there, and it was "
        "changed in that knowledge."
        for other in before
    ]
    chosen = " ".join([*said, "Nothing else was chosen on it: " if said else "Nothing was chosen on it: "])
    if row.held_out_top1 is None:
        return (
            f"One run, seed {row.seed}, trained on all {total:,} images for training; the test split was read after "
            f"training. {chosen}the recipe was chosen in shorter runs that held out a part of the train split."
        )
    return (
        f"One run, seed {row.seed}; the test split was read after training. {chosen}"
        f"{row.held_out_images:,} of {total:,} images for training were held out for that, and on them the net has "
        f"{percent(row.held_out_top1)}."
    )


def _scored(row: AccuracyRow) -> str:
    if row.weights_dtype == "float16":
        return "The weights ship in half precision and were scored as they ship, computing in fp32."
    return "Evaluated in fp32."


def _seeds(row: AccuracyRow, rows: Sequence[AccuracyRow]) -> str:
    top1 = ", ".join(f"{percent(other.top1)} (seed {other.seed})" for other in rows)
    return (
        f"{len(rows)} runs that differ in the seed alone have {spread(rows)} % (mean and standard deviation, n = "
        f"{len(rows)}): {top1}. Of them seed {row.seed} ships, the best on the held-out images."
    )
