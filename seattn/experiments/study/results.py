"""What the rows of a study say: each variant's accuracy over seeds, its paired difference, and the factors' effects.

Accuracies are percent, differences points, both of the held-out part. Seeds say how another training would fall, on
these same images: all seeds hold out the same ones, and how other images would fall is no part of any interval here.

Rows of a study, one a run: what was run and its accuracy row, as CSV with the conditions in columns of their own.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

import dacite

from seattn.core.errors import UserError, first_line
from seattn.core.files import write_text
from seattn.core.rows import AccuracyRow, Conditions
from seattn.evaluation.statistics import SeedDifference, Summary, compare, difference, summarize, with_holm
from seattn.experiments.study.design import Ablation, run_name

_WHAT = ("study", "variant", "run")
_WHERE = [f.name for f in fields(Conditions)]
_COLUMNS = [*_WHAT, *(f.name for f in fields(AccuracyRow) if f.name != "conditions"), *_WHERE]
# Cells are text, and JSON has no way to say 1.0 that all programs keep.
_TYPES = dacite.Config(type_hooks={int: int, float: float}, strict=True)


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
        UserError: if it is no such row, or not of the held-out part.
    """
    try:
        row = _row(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (dacite.DaciteError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is no result of a run: {first_line(error)}") from error
    if row.split != "held-out":
        raise UserError(f"{path} is of the {row.split} split; a study compares on what is held out of train")
    return row


def read_rows(path: Path) -> list[StudyRow]:
    """All rows of `path`; none if there is no such file.

    Raises:
        UserError: if it holds anything else than such rows.
    """
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if not set(_WHAT) <= set(reader.fieldnames or ()):
                raise UserError(f"{path} holds no rows of a study: the columns {', '.join(_WHAT)} are not there")
            return [_study_row(cells, f"{path}, line {reader.line_num},") for cells in reader]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no CSV in UTF-8: {first_line(error)}") from error


def write_rows(path: Path, rows: Iterable[StudyRow]) -> None:
    """All rows, whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        result = asdict(row.result)
        where = result.pop("conditions")
        writer.writerow({"study": row.study, "variant": row.variant, "run": row.run, **result, **where})
    write_text(path, text.getvalue())


def _study_row(cells: Mapping[str, Any], where: str) -> StudyRow:
    try:
        if None in cells or None in cells.values():
            raise ValueError("it has too many cells or too few")
        flat = dict(cells)
        what = {key: flat.pop(key) for key in _WHAT}
        conditions = {key: flat.pop(key) for key in _WHERE}
        return StudyRow(**what, result=_row({**flat, "conditions": conditions}))
    except (dacite.DaciteError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where} is no row of a study: {first_line(error)}") from error


def _row(raw: Any) -> AccuracyRow:
    if not isinstance(raw, dict):
        raise ValueError("it is no mapping")
    row = dacite.from_dict(AccuracyRow, raw, _TYPES)
    if not 0 <= row.top1 <= 1:  # nan too
        raise ValueError(f"top1 is {row.top1}, not within 0 and 1")
    if row.n < 1 or row.epochs < 1 or not math.isfinite(row.train_seconds):
        raise ValueError("n, epochs or train_seconds is out of range")
    return row


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
