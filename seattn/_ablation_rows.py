"""Rows of a study, one a run: what was run and its accuracy row, as CSV with the conditions in columns of their own."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import dacite

from seattn.core.errors import UserError, first_line
from seattn.core.files import write_text
from seattn.core.rows import AccuracyRow, Conditions

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
