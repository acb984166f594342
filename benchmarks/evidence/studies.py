"""The committed rows of the studies, benchmarks/results/ablations/<study>.csv, and what is rendered from them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks.evidence.rows import RESULTS
from benchmarks.evidence.study_classes import read_study_classes, render_hardest
from seattn.core.errors import UserError
from seattn.evaluation.statistics import SeedDifference
from seattn.experiments.study.design import load_ablation
from seattn.experiments.study.figures import plot_bytes
from seattn.experiments.study.results import StudyResult, StudyRow, read_rows, rows_of, summarize_study
from seattn.experiments.study.tables import markdown, points

STUDIES = Path(__file__).parents[2] / "zoo_configs" / "ablations"
ROWS = RESULTS / "ablations"
GAIN = ("se-dropout-augment", "no_se", "SE")  # the study, its variant without it, and what the README calls it
# Said after it, each where its study has rows: the sentence's begin, then (study, variant, what the README calls it).
MORE = (
    (
        "Without dropout, attention in ResNet-20 changes it by, in points",
        (("attention", "se", "SE"), ("attention", "eca", "ECA"), ("attention", "cbam", "CBAM")),
    ),
    (
        'Gates that start near 1 instead of near 1/2 (`gate="two_sigmoid"`) change these by, in points',
        (("gate", "two_sigmoid", "SE"), ("cbam-gate", "two_sigmoid", "CBAM")),
    ),
)


def check_rows(name: str, rows: list[StudyRow], studies: Path = STUDIES) -> None:
    """See that each of `rows` is a run of the shipped study `name`, of committed code.

    Raises:
        UserError: naming the first that is not.
    """
    path = studies / f"{name}.yaml"
    if not path.exists():
        raise UserError(f"{name} is no study that ships: there is no {path}")
    if not rows:
        raise UserError(f"there are no rows of {name}")
    known = {row.run: row for row in rows_of(load_ablation(path), rows)}
    for row in rows:
        if known.get(row.run) != row:
            raise UserError(f"{row.run}, {row.variant!r} of {row.study!r}, is no run of {path}, or stands there twice")
        if row.result.split != "held-out":
            raise UserError(
                f"{row.run} is of the {row.result.split} split; a study compares on what is held out of train"
            )
        commit = row.result.conditions.commit
        if not commit or commit.endswith("+"):
            raise UserError(f"{row.run} was trained by code that no commit holds ({commit or 'none'}); train it again")
    if len(known) < len(rows):
        raise UserError(f"a run of {name} stands twice in its rows")


def committed(rows: Path = ROWS, studies: Path = STUDIES) -> dict[str, StudyResult]:
    """The result of each study that has rows, over all seeds that it has rows of."""
    found = {}
    for path in sorted(rows.glob("*.csv")):
        own = read_rows(path)
        check_rows(path.stem, own, studies)
        seeds = tuple(sorted({row.result.seed for row in own}))
        found[path.stem] = summarize_study(replace(load_ablation(studies / f"{path.stem}.yaml"), seeds=seeds), own)
    return found


def render_gain(results: Mapping[str, StudyResult]) -> str:
    """The README's sentence of what SE gives, whatever the rows say."""
    study, variant, what = GAIN
    if study not in results:
        return f"What {what} gives: not measured yet; `seattn ablate zoo_configs/ablations/{study}.yaml` does.\n"
    result = results[study]
    d = next(v.against for v in result.variants if v.name == variant)
    if d is None:
        return f"What {what} gives: no seed of `{study}` has both nets yet.\n"
    of = result.rows[0].result
    seeds = f"{d.n} seed{'' if d.n == 1 else 's'}, {of.epochs} epochs"
    held_out = f"{of.n:,} images held out of {of.dataset}'s train split"
    return (
        f"Taking {what} away from SE-ResNet-20 changes held-out accuracy by {points(d.mean)} points "
        f"({_interval(d)}{seeds}, {held_out}): {_verdict(d)}. {_more(results)}"
        "All of it: [benchmarks/results/ablations](benchmarks/results/ablations/README.md).\n"
    )


def _more(results: Mapping[str, StudyResult]) -> str:
    sentences = []
    for begin, wanted in MORE:
        found = []
        for study, name, called in wanted:
            variants = results[study].variants if study in results else ()
            for d in (v.against for v in variants if v.name == name and v.against is not None):
                interval = "" if d.low is None or d.high is None else f" ({points(d.low)} to {points(d.high)})"
                found.append(f"{called} {points(d.mean)}{interval}")
        if found:
            sentences.append(f"{begin}: {', '.join(found)}. ")
    return "".join(sentences)


def _interval(d: SeedDifference) -> str:
    if d.low is None or d.high is None:
        return ""
    return f"95 % t interval {points(d.low)} to {points(d.high)}, paired by seed, n = "


def _verdict(d: SeedDifference) -> str:
    if d.low is None or d.high is None:
        return "too few seeds to tell it from luck" if d.n < 3 else "every seed gave this same difference"
    if d.low <= 0 <= d.high:
        return "the seeds do not tell it from luck, which is no proof that there is no difference"
    return "more than the luck of a seed explains"


def render_page(results: Mapping[str, StudyResult], rows: Path = ROWS) -> str:
    """benchmarks/results/ablations/README.md: every study's table and plot, and its hardest class where one looked."""
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
