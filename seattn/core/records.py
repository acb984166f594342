"""Frozen dataclasses as rows of a CSV file: the field `conditions` becomes columns of its own; read back typed."""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from functools import lru_cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from seattn.core.errors import UserError
from seattn.core.files import write_text
from seattn.core.rows import Conditions

Row = TypeVar("Row")
_CONDITIONS = [f.name for f in fields(Conditions)]


def read(cls: type[Row], path: Path) -> list[Row]:
    """All rows of `path`, oldest first; none if there is no such file.

    Raises:
        UserError: if `path` holds anything else than such rows.
    """
    reader = csv.DictReader(io.StringIO(_text(path), newline=""))
    try:
        if reader.fieldnames not in (None, _columns(cls)):
            raise UserError(_other_columns(cls, path))
        return [from_flat(cls, row) for row in reader]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}, line {reader.line_num}, is no {cls.__name__}: {error}") from error


def append(cls: type[Row], path: Path, rows: Iterable[Row]) -> None:
    """Append `rows` to `path`, all or none. None is an empty cell.

    Raises:
        UserError: if `path` has other columns, or cannot be read.
    """
    columns = _columns(cls)
    header = ",".join(columns) + "\n"
    before = _text(path) if path.exists() else header
    if not before.startswith(header):
        raise UserError(f"{_other_columns(cls, path)}: give another file")
    text = io.StringIO()
    csv.DictWriter(text, columns, lineterminator="\n").writerows(_to_flat(row) for row in rows)
    write_text(path, before + text.getvalue())


def from_flat(cls: type[Row], flat: Mapping[str, Any]) -> Row:
    """A row from its columns, as text or as values.

    Raises:
        KeyError: for a column that no field has.
        TypeError: if a column is missing.
        ValueError: for text that is no value of its column.
    """
    hints = _hints(cls)  # type: ignore[arg-type]  # a class is hashable
    typed = {key: _typed(hints[key], value) for key, value in flat.items()}
    where = {name: typed.pop(name) for name in _CONDITIONS}
    make: Any = cls
    return make(**typed, conditions=Conditions(**where))  # type: ignore[no-any-return]


def _columns(cls: Any) -> list[str]:
    return [f.name for f in fields(cls) if f.name != "conditions"] + _CONDITIONS


def _other_columns(cls: Any, path: Path) -> str:
    return f"{path} has other columns than {cls.__name__}"


def _text(path: Path) -> str:
    if not path.exists():
        return ""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return file.read()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8") from error


@lru_cache
def _hints(cls: Any) -> dict[str, Any]:
    return {**get_type_hints(cls), **get_type_hints(Conditions)}


def _to_flat(row: Any) -> dict[str, Any]:
    flat = asdict(row)
    where = flat.pop("conditions")
    return {**flat, **where}


def _typed(hint: Any, value: Any) -> Any:
    if get_origin(hint) is UnionType:  # the only union of a row is with None
        if value in ("", None):
            return None
        (hint,) = (arg for arg in get_args(hint) if arg is not NoneType)
    if value is None:
        raise ValueError("a cell is missing")
    if hint is bool:
        return {"True": True, "False": False}[str(value)]  # bool("False") is True
    return hint(value)
