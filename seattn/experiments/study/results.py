"""What the rows of a study say: each variant's accuracy over seeds, its paired difference, and the factors' effects.

Accuracies are percent, differences points, both of the held-out part. Seeds say how another training would fall, on
these same images: all seeds hold out the same ones, and how other images would fall is no part of any interval here.

Rows of a study, one a run: what was run and its accuracy row, as CSV with the conditions in columns of their own.
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
    """`run`: `run_name` of the recipe, seed included."""

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
    """A variant over its finished seeds; what its absence leaves unknown is None.

    Args:
        accuracy: by seed.
        against: this minus the study's reference, paired by seed; None for the reference itself.
        params: of the net; minutes: the median of the runs' training time.
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
    """A main effect: of each seed the mean over all levels of the other factors, then over seeds."""

    name: str
    by_seed: dict[int, float]
    difference: SeedDifference | None


@dataclass(frozen=True)
class StudyResult:
    """The whole study, as far as it is.

    Args:
        missing: each run that has no row: variant, seed, and how far it is, "" where nothing is known of that.
        failures: runs that failed in this command, and why.
    """

    name: str
    variants: tuple[VariantResult, ...]
    effects: tuple[EffectResult, ...]
    rows: tuple[StudyRow, ...]
    missing: tuple[tuple[str, int, str], ...]
    failures: tuple[tuple[str, str], ...] = ()

    @property
    def reference(self) -> str:
        """What the others are compared with."""
        return self.variants[0].name


def rows_of(ablation: Ablation, rows: Sequence[StudyRow]) -> list[StudyRow]:
    """Those of `rows` whose run is one of the study's, named as it names them, sorted; of one run the last.

    Runs of other seeds than the study's are its own too.
    """
    known = {
        (run_name(replace(recipe, seed=seed)), seed): (place, variant)
        for seed in {row.result.seed for row in rows}
        for place, (variant, recipe) in enumerate(ablation.variants.items())
    }
    found: dict[tuple[int, int], StudyRow] = {}
    for row in rows:
        key = row.run, row.result.seed
        if key in known:
            place, variant = known[key]
            found[place, row.result.seed] = replace(row, study=ablation.name, variant=variant)
    return [found[key] for key in sorted(found)]


def summarize_study(ablation: Ablation, rows: Sequence[StudyRow]) -> StudyResult:
    """The result over the study's own seeds, as far as there are rows."""
    rows = [row for row in rows_of(ablation, rows) if row.result.seed in ablation.seeds]
    of: dict[str, dict[int, StudyRow]] = {name: {} for name in ablation.variants}
    for row in rows:
        of[row.variant][row.result.seed] = row
    accuracy = {name: {s: 100 * row.result.top1 for s, row in seeds.items()} for name, seeds in of.items()}
    against = with_holm([_against(accuracy[name], accuracy[ablation.reference]) for name in list(of)[1:]])
    variants = tuple(
        VariantResult(
            name,
            accuracy[name],
            summarize(list(accuracy[name].values())) if seeds else None,
            other,
            *_costs(list(seeds.values())),
        )
        for (name, seeds), other in zip(of.items(), [None, *against], strict=True)
    )
    by_seed = [_effect(effect.pairs, accuracy) for effect in ablation.effects]
    effects = with_holm([difference(list(values.values())) if values else None for values in by_seed])
    return StudyResult(
        ablation.name,
        variants,
        tuple(map(EffectResult, (effect.name for effect in ablation.effects), by_seed, effects)),
        tuple(rows),
        tuple((name, seed, "") for name in of for seed in ablation.seeds if seed not in of[name]),
    )


def _against(values: dict[int, float], reference: dict[int, float]) -> SeedDifference | None:
    seeds = [seed for seed in values if seed in reference]
    return compare([values[s] for s in seeds], [reference[s] for s in seeds]) if seeds else None


def _effect(pairs: Sequence[tuple[str, str]], accuracy: dict[str, dict[int, float]]) -> dict[int, float]:
    """By seed, of those that all pairs have: a mean over some of the others' levels would be of those."""
    present = [set(accuracy[name]) for pair in pairs for name in pair]
    seeds = sorted(set.intersection(*present))
    return {s: fmean(accuracy[name][s] - accuracy[first][s] for name, first in pairs) for s in seeds}


def _costs(rows: Sequence[StudyRow]) -> tuple[int | None, float | None, int | None]:
    if not rows:
        return None, None, None
    results = [row.result for row in rows]
    return results[0].params, median(r.train_seconds for r in results) / 60, max(r.epochs for r in results)
