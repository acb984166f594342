"""The result of a study: each variant's accuracy over the seeds, its paired differences, and the main effects.

Accuracies are in per cent and differences in percentage points, both on the held-out images. All seeds hold out the
same images, so the intervals tell how another training would score on these images, and nothing about other images.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median

from seattn.core import records
from seattn.core.errors import UserError
from seattn.core.files import write_text
from seattn.core.rows import AccuracyRow
from seattn.evaluation.statistics import SeedDifference, Summary, compare, difference, summarize, with_holm
from seattn.experiments.study.design import Ablation, run_name


@dataclass(frozen=True)
class StudyRow:
    """The row of one run in rows.csv.

    Args:
        study: the name of the study.
        variant: the name of the variant.
        run: `run_name` of the variant's recipe with the run's seed.
        result: the run's accuracy on the held-out images.
    """

    study: str
    variant: str
    run: str
    result: AccuracyRow


def read_result(path: Path) -> AccuracyRow:
    """The row in a run's result.json.

    Raises:
        UserError: if the file holds no such row, or a row that is not of the held-out images.
    """
    row = records.parse(AccuracyRow, records.read_json(path), path)
    if row.split != "held-out":
        raise UserError(f"{path} is of the {row.split} split; a study compares on what is held out of train")
    return row


def read_rows(path: Path) -> list[StudyRow]:
    """All rows of `path`; none if there is no such file.

    Raises:
        UserError: if the file holds anything else than such rows.
    """
    return records.read_rows(StudyRow, path)


def write_rows(path: Path, rows: Iterable[StudyRow]) -> None:
    """Write all rows, whole or not at all."""
    write_text(path, records.render_rows(StudyRow, rows))


@dataclass(frozen=True)
class VariantResult:
    """A variant over its finished seeds; None stands for a number that too few runs leave unknown.

    Args:
        accuracy: the accuracy by seed.
        against: the difference to the study's reference, paired by seed; None for the reference itself.
        params: the number of the net's parameters.
        minutes: the median training time of the runs.
    """

    name: str
    accuracy: dict[int, float]
    summary: Summary | None
    against: SeedDifference | None
    params: int | None
    minutes: float | None
    epochs: int | None


@dataclass(frozen=True)
class EffectResult:
    """A main effect: for each seed the mean over all levels of the other factors, then the mean over the seeds."""

    name: str
    by_seed: dict[int, float]
    difference: SeedDifference | None


@dataclass(frozen=True)
class StudyResult:
    """The result of a study, in which runs may be missing.

    Args:
        missing: the variant, the seed and the progress of each run without a row; "" is an unknown progress.
        failures: the titles of the runs that failed in this command, and the reasons.
    """

    name: str
    variants: tuple[VariantResult, ...]
    effects: tuple[EffectResult, ...]
    rows: tuple[StudyRow, ...]
    missing: tuple[tuple[str, int, str], ...]
    failures: tuple[tuple[str, str], ...] = ()

    @property
    def reference(self) -> str:
        """The name of the variant with which the others are compared."""
        return self.variants[0].name


def rows_of(ablation: Ablation, rows: Sequence[StudyRow]) -> list[StudyRow]:
    """The rows of the study's runs, in the study's order and with its names of variants; the last row of each run.

    Runs with other seeds than the file's belong to the study too.
    """
    known = {
        (run_name(replace(recipe, seed=seed)), seed): (place, variant)
        for seed in {row.result.seed for row in rows}
        for place, (variant, recipe) in enumerate(ablation.variants.items())
    }
    by_place: dict[tuple[int, int], StudyRow] = {}
    for row in rows:
        key = row.run, row.result.seed
        if key in known:
            place, variant = known[key]
            by_place[place, row.result.seed] = replace(row, study=ablation.name, variant=variant)
    return [by_place[key] for key in sorted(by_place)]


def summarize_study(ablation: Ablation, rows: Sequence[StudyRow]) -> StudyResult:
    """The result over the study's seeds that have rows."""
    rows = [row for row in rows_of(ablation, rows) if row.result.seed in ablation.seeds]
    by_seed: dict[str, dict[int, StudyRow]] = {name: {} for name in ablation.variants}
    for row in rows:
        by_seed[row.variant][row.result.seed] = row
    accuracy = {name: {s: 100 * row.result.top1 for s, row in seeds.items()} for name, seeds in by_seed.items()}
    against = with_holm([_against(accuracy[name], accuracy[ablation.reference]) for name in list(by_seed)[1:]])
    variants = tuple(
        VariantResult(
            name,
            accuracy[name],
            summarize(list(accuracy[name].values())) if seeds else None,
            other,
            *_costs(list(seeds.values())),
        )
        for (name, seeds), other in zip(by_seed.items(), [None, *against], strict=True)
    )
    effects_by_seed = [_effect(effect.pairs, accuracy) for effect in ablation.effects]
    effects = with_holm([difference(list(values.values())) if values else None for values in effects_by_seed])
    return StudyResult(
        ablation.name,
        variants,
        tuple(map(EffectResult, (effect.name for effect in ablation.effects), effects_by_seed, effects)),
        tuple(rows),
        tuple((name, seed, "") for name in by_seed for seed in ablation.seeds if seed not in by_seed[name]),
    )


def _against(values: dict[int, float], reference: dict[int, float]) -> SeedDifference | None:
    seeds = [seed for seed in values if seed in reference]
    return compare([values[s] for s in seeds], [reference[s] for s in seeds]) if seeds else None


def _effect(pairs: Sequence[tuple[str, str]], accuracy: dict[str, dict[int, float]]) -> dict[int, float]:
    """The mean difference over the pairs, for each seed that all pairs have."""
    present = [set(accuracy[name]) for pair in pairs for name in pair]
    seeds = sorted(set.intersection(*present))
    return {s: fmean(accuracy[name][s] - accuracy[first][s] for name, first in pairs) for s in seeds}


def _costs(rows: Sequence[StudyRow]) -> tuple[int | None, float | None, int | None]:
    if not rows:
        return None, None, None
    results = [row.result for row in rows]
    return results[0].params, median(r.train_seconds for r in results) / 60, max(r.epochs for r in results)
