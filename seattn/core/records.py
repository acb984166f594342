"""Frozen dataclasses as rows of a CSV file: the field `conditions` becomes columns of its own; read back typed."""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from functools import lru_cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import dacite

from seattn.core.errors import UserError, first_line
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
    return make(**typed, conditions=Conditions(**where))


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


_LARGEST = 2**20 * 4  # bytes of a file of facts; a confusion matrix of 1,000 classes fits


_LONGEST = 200  # characters of a name


Data = TypeVar("Data")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: if it is missing, too large or none.
    """
    try:
        size = path.stat().st_size
        if size > _LARGEST:
            raise UserError(f"{path} has {size:,} bytes, more than such a file needs; take it from its source again")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is not valid JSON: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object, it holds {type(content).__name__}")
    return content


def dump(content: Mapping[str, Any]) -> str:
    """`content` as JSON, a line a key and a line a row of a table."""
    lines = [f"  {json.dumps(key)}: {_value(value)}" for key, value in content.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def parse(cls: type[Data], raw: Mapping[str, Any], source: Path) -> Data:
    """A frozen dataclass from plain values.

    Raises:
        UserError: naming `source`, for a key that is unknown, missing or of another type.
    """
    try:
        return dacite.from_dict(cls, _frozen(raw), dacite.Config(strict=True))
    except (dacite.DaciteError, TypeError) as error:
        raise UserError(f"{source} is no {cls.__name__} as this version of seattn writes it: {error}") from error


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _frozen(item) for key, item in value.items()}
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


def _value(value: Any) -> str:
    if isinstance(value, Mapping) and any(isinstance(item, list | tuple | Mapping) for item in value.values()):
        return dump(value).rstrip().replace("\n", "\n  ")
    if isinstance(value, list | tuple) and value and isinstance(value[0], list | tuple | Mapping):
        return "[\n    " + ",\n    ".join(json.dumps(row) for row in value) + "\n  ]"
    return json.dumps(value)
