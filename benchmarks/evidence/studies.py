"""The committed rows of the studies, benchmarks/results/ablations/<study>.csv, and the documents rendered from them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.evidence.rows import RESULTS
from benchmarks.evidence.study_classes import read_study_classes, render_hardest
from seattn.core.errors import UserError
from seattn.evaluation.statistics import SeedDifference, with_holm
from seattn.experiments.study.design import load_ablation
from seattn.experiments.study.figures import plot_bytes
from seattn.experiments.study.results import StudyResult, StudyRow, read_rows, rows_of, summarize_study
from seattn.experiments.study.tables import markdown, p_value, points

STUDIES = Path(__file__).parents[2] / "zoo_configs" / "ablations"
ROWS = RESULTS / "ablations"


@dataclass(frozen=True)
class Change:
    """A line of the README's table: a variant of a study, and its change in words.

    Args:
        removes: whether the variant is the net without the change; the line then shows the opposite difference.
    """

    study: str
    variant: str
    words: str
    removes: bool = False


CHANGES = (
    Change("se-dropout-augment", "no_se", "SE added, in a recipe with dropout and cut-out", removes=True),
    Change("attention", "se", "SE added, without dropout"),
    Change("attention", "eca", "ECA added, without dropout"),
    Change("attention", "cbam", "CBAM added, without dropout"),
    Change("gate", "two_sigmoid", 'SE\'s gates start near 1, not near 1/2 (`gate="two_sigmoid"`)'),
    Change("cbam-gate", "two_sigmoid", "CBAM's gates start near 1"),
)


def check_rows(name: str, rows: list[StudyRow], studies: Path = STUDIES) -> None:
    """Check that each of `rows` is a run of the shipped study `name`, by committed code.

    Raises:
        UserError: naming the first row that is not.
    """
    path = studies / f"{name}.yaml"
    if not path.exists():
        raise UserError(f"{name} is not a shipped study: there is no {path}")
    if not rows:
        raise UserError(f"there are no rows of {name}")
    known = {row.run: row for row in rows_of(load_ablation(path), rows)}
    for row in rows:
        if known.get(row.run) != row:
            raise UserError(f"{row.run}, {row.variant!r} of {row.study!r}, is not a run of {path}, or is twice in it")
        if row.result.split != "held-out":
            raise UserError(f"{row.run} is of the {row.result.split} split; a study compares scores of held-out images")
        commit = row.result.conditions.commit
        if not commit or commit.endswith("+"):
            raise UserError(
                f"{row.run} was trained by code without a commit ({commit or 'none'}); commit the code and train again"
            )
    if len(known) < len(rows):
        raise UserError(f"a run of {name} is twice in its rows")


def committed(rows: Path = ROWS, studies: Path = STUDIES) -> dict[str, StudyResult]:
    """The result of each study that has rows, over all seeds of these rows."""
    results = {}
    for path in sorted(rows.glob("*.csv")):
        own = read_rows(path)
        check_rows(path.stem, own, studies)
        seeds = tuple(sorted({row.result.seed for row in own}))
        results[path.stem] = summarize_study(replace(load_ablation(studies / f"{path.stem}.yaml"), seeds=seeds), own)
    return results


def render_gain(results: Mapping[str, StudyResult]) -> str:
    """The README's sentence on the gain of attention, and its table: a line for each change that has rows."""
    found = {change: d for change in CHANGES if (d := _difference(change, results)) is not None}
    differences = {change: d for change, d in zip(found, with_holm(list(found.values())), strict=True) if d is not None}
    if not differences:
        command = "seattn ablate zoo_configs/ablations/attention.yaml"
        return f"What attention gives ResNet-20 is not measured yet; `{command}` measures it.\n"
    rows = [results[change.study].rows[0].result for change in differences]
    epochs, images = sorted({row.epochs for row in rows}), sorted({row.n for row in rows})
    lines = [
        f"{_answer(differences)} Runs of {' or '.join(map(str, epochs))} epochs, judged on "
        f"{' or '.join(f'{n:,}' for n in images)} images held out of {rows[0].dataset}'s train split; differences are "
        "paired by seed.",
        "",
        "| change to ResNet-20 | points of accuracy | 95 % t interval | p (Holm) | seeds |",
        "| --- | --- | --- | --- | --- |",
    ]
    for change, d in differences.items():
        interval = "" if d.low is None or d.high is None else f"{points(d.low)} to {points(d.high)}"
        lines.append(f"| {change.words} | {points(d.mean)} | {interval} | {p_value(d.p_holm)} | {d.n} |")
    lines.append("\nAll studies: [benchmarks/results/ablations](benchmarks/results/ablations/README.md).")
    return "\n".join(lines) + "\n"


def _difference(change: Change, results: Mapping[str, StudyResult]) -> SeedDifference | None:
    variants = results[change.study].variants if change.study in results else ()
    d = next((variant.against for variant in variants if variant.name == change.variant), None)
    if d is None or not change.removes:
        return d
    low, high = (None, None) if d.low is None or d.high is None else (-d.high, -d.low)
    return replace(d, mean=-d.mean, low=low, high=high)


def _answer(differences: Mapping[Change, SeedDifference]) -> str:
    """For which changes the seeds show that the difference is not chance, and how that was tested."""
    clear = {change: d for change, d in differences.items() if d.p_holm is not None and d.p_holm < 0.05}
    excluded = {
        change: d
        for change, d in differences.items()
        if change not in clear and d.low is not None and d.high is not None and not d.low <= 0 <= d.high
    }
    answer = (
        f"These changes make a difference that is larger than chance explains: {_in_words(clear)}"
        if clear
        else "No change in the table makes a difference that is larger than chance explains"
    )
    answer += f" (paired t-test, p below 0.05 after Holm's correction for {len(differences)} comparisons)."
    if excluded:
        answer += f" Without the correction, the intervals of these changes exclude 0: {_in_words(excluded)}."
    return answer


def _in_words(differences: Mapping[Change, SeedDifference]) -> str:
    return "; ".join(f"{change.words} ({points(d.mean)} points)" for change, d in differences.items())


def render_page(results: Mapping[str, StudyResult], rows: Path = ROWS) -> str:
    """benchmarks/results/ablations/README.md: tables and plots of the studies, and the hardest classes."""
    head = (
        "# Studies\n\nRendered by `make cards` from the rows beside it, which `seattn ablate` makes of the files in "
        "[zoo_configs/ablations](../../../zoo_configs/ablations).\n"
    )
    if not results:
        return f"{head}\nThere are no rows yet.\n"
    parts = []
    for name, result in results.items():
        classes = read_study_classes(name, rows)
        hardest = render_hardest(result, classes) + "\n" if classes else ""
        parts.append(f"## {name}\n\n{markdown(result)}\n{hardest}![{name}]({name}.svg)\n")
    return "\n".join([head, *parts])


def render_plots(results: Mapping[str, StudyResult]) -> dict[str, bytes]:
    """The SVG of each study, by the name of its file."""
    return {f"{name}.svg": plot_bytes(result, "svg") for name, result in results.items()}
