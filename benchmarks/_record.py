"""Rows of accuracy: appended by code from a finished run, read back typed. One schema, `seattn.rows.AccuracyRow`."""

import json
from pathlib import Path

from benchmarks import _csv
from seattn.errors import UserError
from seattn.rows import AccuracyRow

RESULTS = Path(__file__).parent / "results"
ACCURACY = RESULTS / "accuracy.csv"


def read_rows(path: Path = ACCURACY) -> list[AccuracyRow]:
    """All rows of `path`, oldest first; none if there is no such file."""
    return _csv.read(AccuracyRow, path)


def append_run(run_dir: Path, path: Path = ACCURACY) -> AccuracyRow:
    """Append the result of a finished run to `path`.

    Raises:
        UserError: if the run is not finished, its result is damaged or its row is there already.
    """
    try:
        result = dict(json.loads((run_dir / "result.json").read_text(encoding="utf-8")))
        measured_in = result.pop("conditions")
        row = _csv.from_flat(AccuracyRow, {**result, **measured_in})
    except OSError as error:
        raise UserError(f"{run_dir} holds no finished run: {error.strerror} ({error.filename})") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{run_dir / 'result.json'} is no result of a run: {error}") from error
    if row in read_rows(path):
        raise UserError(f"the row of {run_dir} stands in {path} already")
    _csv.append(AccuracyRow, path, [row])
    return row
