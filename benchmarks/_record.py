"""Rows of accuracy: appended by code from a finished run, read back typed. One schema, `seattn.rows.AccuracyRow`."""

import csv
import io
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_type_hints

from seattn._files import write_text
from seattn.errors import UserError
from seattn.rows import AccuracyRow, Conditions

ACCURACY = Path(__file__).parent / "results" / "accuracy.csv"
_CONDITIONS = [f.name for f in fields(Conditions)]
_COLUMNS = [f.name for f in fields(AccuracyRow) if f.name != "conditions"] + _CONDITIONS


def read_rows(path: Path = ACCURACY) -> list[AccuracyRow]:
    """All rows of `path`, oldest first; none if there is no such file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [_from_flat(row) for row in csv.DictReader(file)]


def append_run(run_dir: Path, path: Path = ACCURACY) -> AccuracyRow:
    """Append the result of a finished run to `path`.

    Raises:
        UserError: if the run is not finished or its row is there already.
    """
    try:
        result = json.loads((run_dir / "result.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{run_dir} holds no finished run: {error.strerror} ({error.filename})") from error
    measured_in = result.pop("conditions")
    row = _from_flat({**result, **measured_in})
    rows = read_rows(path)
    if row in rows:
        raise UserError(f"the row of {run_dir} stands in {path} already")
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_to_flat(r) for r in [*rows, row])
    write_text(path, text.getvalue())
    return row


def _to_flat(row: AccuracyRow) -> dict[str, Any]:
    flat = asdict(row)
    measured_in = flat.pop("conditions")
    return {**flat, **measured_in}


def _from_flat(flat: dict[str, Any]) -> AccuracyRow:
    hints = {**get_type_hints(AccuracyRow), **get_type_hints(Conditions)}
    typed = {key: hints[key](value) for key, value in flat.items()}
    condition = {name: typed.pop(name) for name in _CONDITIONS}
    return AccuracyRow(**typed, conditions=Conditions(**condition))
