"""Typed records from YAML, JSON and CSV files; content that does not fit is refused with an error of one line.

A record is a frozen dataclass. pydantic checks its values, by the annotations of its fields.
"""

import csv
import io
import json
import math
import os
import stat
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from seattn.core.errors import UserError, did_you_mean, first_line
from seattn.core.files import not_found, write_text

Record = TypeVar("Record")
LARGEST = 16 * 2**20  # bytes of a file; a confusion matrix of 1,000 classes takes 4 MB
MOST_VALUES = 100_000  # in a YAML file; the largest of zoo_configs has 200
_EXPECTED = {  # in place of messages of pydantic that name types of Python
    "tuple_type": "a list",
    "list_type": "a list",
    "model_type": "a mapping of keys to values",
    "dict_type": "a mapping of keys to values",
    "dataclass_type": "a mapping of keys to values",
}
_PLAIN = {  # words of pydantic's other messages, and shorter ones
    "Input should": "must",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid string": "text",
    "a valid boolean": "true or false",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
}


def read_text(path: Path, what: str = "") -> str:
    """The text of a file.

    Args:
        what: the name of such a file in an error message.

    Raises:
        UserError: if the file cannot be read, is not a plain file, is too large, or is not text in UTF-8.
    """
    name = f"{what} {path}".strip()
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{name} is not a plain file; give the path of a file")
        if status.st_size > LARGEST:
            size = f"{status.st_size:,} bytes, more than the {LARGEST:,} that such a file may have"
            raise UserError(f"{name} has {size}; take it from its source again")
        with path.open(encoding="utf-8", newline="") as file:
            return file.read().removeprefix("\ufeff")  # the mark with which editors on Windows begin a text
    except OSError as error:
        if os.path.islink(path):
            raise UserError(not_found(what or "file", path)) from error
        raise UserError(f"cannot read {name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not text in UTF-8: {error}") from error
    except ValueError as error:  # a NUL in the path
        raise UserError(f"cannot read {name!r}: {error}") from error


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which also refuses a key that occurs twice; PyYAML itself takes the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: list[Any] = []
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                message = f"the key {key!r} occurs twice; remove one"
                raise yaml.constructor.ConstructorError(None, None, message, key_node.start_mark)
            seen.append(key)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:
    """The content of a YAML text.

    Raises:
        yaml.YAMLError, ValueError or RecursionError: if the text is not valid YAML, a key occurs twice, an alias
            contains itself, or the aliases stand for more than `MOST_VALUES` values.
    """
    loader = _Loader(text)
    node = loader.get_single_node()
    if node is None:
        return None
    if _values(node, {}) > MOST_VALUES:
        raise ValueError(f"its aliases stand for more than {MOST_VALUES:,} values; write the values out")
    return loader.construct_document(node)


def _values(node: yaml.Node, known: dict[int, float]) -> float:
    """The number of values in `node`; an alias counts all values that it stands for. Infinite if it contains itself."""
    if id(node) not in known:
        known[id(node)] = math.inf  # until the number is known
        children: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        known[id(node)] = 1 + sum(_values(child, known) for child in children)
    return known[id(node)]


def read_yaml(path: Path, what: str, example: str) -> dict[str, Any]:
    """The keys and values of a YAML file.

    Args:
        what: the name of such a file in an error message.
        example: a line that such a file could have.

    Raises:
        UserError: if the file cannot be read or is not a mapping.
    """
    text = read_text(path, what)
    try:
        content = parse_yaml(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{what} {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{what} {path} must be a mapping of keys to values, for example {example!r}")
    return content


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: if the file cannot be read or does not hold a JSON object.
    """
    text = read_text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object, it holds {type(content).__name__}")
    return content


def dump(content: Mapping[str, Any]) -> str:
    """`content` as JSON, with a line for each key and for each row of a table."""
    lines = [f"  {json.dumps(key)}: {_dump_value(value)}" for key, value in content.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _dump_value(value: Any) -> str:
    if isinstance(value, Mapping) and any(isinstance(item, list | tuple | Mapping) for item in value.values()):
        return dump(value).rstrip().replace("\n", "\n  ")
    if isinstance(value, list | tuple) and value and isinstance(value[0], list | tuple | Mapping):
        return "[\n    " + ",\n    ".join(json.dumps(row) for row in value) + "\n  ]"
    return json.dumps(value)


def parse(cls: type[Record], content: object, source: Path | str) -> Record:
    """The record in the values of a JSON or YAML file; YAML's dates and bytes count as text, sets as lists.

    Raises:
        UserError: naming `source`, for a key that is unknown, missing or of another type.
    """
    try:
        text = to_json(content, inf_nan_mode="constants", bytes_mode="base64")
        return TypeAdapter(cls).validate_json(text, strict=True, extra="forbid")
    except ValidationError as error:
        raise UserError(f"{source} is not a valid {cls.__name__}: {explain(cls, error)}") from error
    except PydanticSerializationError as error:  # half of a surrogate pair, or values nested too deep
        raise UserError(f"{source} is not a valid {cls.__name__}: {first_line(error)}") from error


def read_rows(cls: type[Record], path: Path) -> list[Record]:
    """All rows of a CSV file, oldest first; none if there is no such file.

    The fields of a record within the record are columns too. A column whose field has a default may be absent.

    Raises:
        UserError: if the file holds anything else than such rows.
    """
    if not path.exists():
        return []
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    rows: list[Record] = []
    adapter = TypeAdapter(cls)
    try:
        names = list(reader.fieldnames or ())
        wrong = [f"{name} is missing" for name in _columns(cls, required=True) if name not in names]
        wrong += [f"{name} is unknown" for name in names if name not in _columns(cls)]
        if wrong:
            raise UserError(f"{path} has other columns than {cls.__name__}: {', '.join(wrong)}")
        for cells in reader:
            if None in cells or None in cells.values():
                raise UserError(f"{path}, line {reader.line_num}, has too many cells or too few")
            rows.append(adapter.validate_python(_nest(cls, cells)))
    except ValidationError as error:
        where = f"{path}, line {reader.line_num},"
        raise UserError(f"{where} is not a valid {cls.__name__}: {explain(cls, error)}") from error
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}, is not valid CSV: {error}") from error
    return rows


def append_rows(cls: type[Record], path: Path, rows: Iterable[Record]) -> None:
    """Append `rows` to a CSV file, all or none. None becomes an empty cell.

    Raises:
        UserError: if the file has other columns, or cannot be read.
    """
    before = read_text(path) if path.exists() else render_rows(cls, [])
    if not before.startswith(render_rows(cls, [])):
        raise UserError(f"{path} has other columns than {cls.__name__}; give another file")
    write_text(path, before + render_rows(cls, rows, header=False))


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Rows of cells as the text of a CSV file; None is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def render_rows(cls: type[Record], rows: Iterable[Record], *, header: bool = True) -> str:
    """`rows` as the text of a CSV file."""
    columns = _columns(cls)
    values = (_flatten(asdict(row)) for row in rows)  # type: ignore[call-overload]
    return csv_text([*([columns] if header else []), *([row[name] for name in columns] for row in values)])


def _columns(cls: Any, *, required: bool = False) -> list[str]:
    """The names of a record's columns: its own values, then those of the records in it."""
    hints = get_type_hints(cls)
    own = [field for field in fields(cls) if not is_dataclass(hints[field.name])]
    names = [field.name for field in own if not required or field.default is MISSING]
    return names + [name for hint in hints.values() if is_dataclass(hint) for name in _columns(hint, required=required)]


def _nest(cls: Any, cells: Mapping[str, str]) -> dict[str, Any]:
    """The plain values of a record from its columns; an empty cell is None where the field may be None."""
    values: dict[str, Any] = {}
    for name, hint in get_type_hints(cls).items():
        if is_dataclass(hint):
            values[name] = _nest(hint, cells)
        elif name in cells:
            values[name] = None if cells[name] == "" and NoneType in get_args(hint) else cells[name]
    return values


def _flatten(values: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat.update(_flatten(value) if isinstance(value, Mapping) else {name: value})
    return flat


def one_line_errors(cls: type[Record]) -> type[Record]:
    """A class decorator of pydantic's dataclasses: their construction raises UserError instead of ValidationError."""
    init: Callable[..., None] = cls.__init__

    def checked(self: Record, *args: Any, **kwargs: Any) -> None:
        try:
            init(self, *args, **kwargs)
        except ValidationError as error:
            raise UserError(explain(cls, error)) from error

    # functools.wraps would also copy the signature, whose first type exists only for type checkers.
    checked.__module__, checked.__qualname__ = init.__module__, init.__qualname__
    cls.__init__ = checked  # type: ignore[method-assign, assignment]
    return cls


def explain(cls: type, error: ValidationError) -> str:
    """The first error that pydantic found in the values for `cls`: the key, what would be right, and the value."""
    errors = error.errors()
    unknown = [item for item in errors if item["type"] == "unexpected_keyword_argument"]
    first = max(unknown or errors, key=lambda item: len(item["loc"]))  # in a union, the branch that fits best
    path = [str(part) for part in first["loc"] if "[" not in str(part)]  # pydantic names the branch of a union there
    key, kind, value = ".".join(path), first["type"], repr(first["input"])
    if kind == "value_error":  # a record's own rule, which names its key
        return str(first["ctx"]["error"])
    if kind == "unexpected_keyword_argument":
        record: Any = cls
        for part in path[:-1]:
            hint = record if part.isdigit() else get_type_hints(record)[part]
            record = next(item for item in (hint, *get_args(hint)) if is_dataclass(item))
        prefix = "".join(f"{part}." for part in path[:-1])
        return f"unknown key {key!r}; {did_you_mean(path[-1], (field.name for field in fields(record)), prefix)}"
    if kind == "missing" and not isinstance(first["loc"][-1], int):
        return f"the key {key!r} is missing"
    if kind == "missing":
        key, right = ".".join(path[:-1]), f"must have at least {int(path[-1]) + 1} values"
    elif kind == "too_short":
        right = f"must have {first['ctx']['min_length']} or more values"
    elif kind == "too_long":
        right = f"must have at most {first['ctx']['max_length']} values"
    elif kind in _EXPECTED:
        right = f"must be {_EXPECTED[kind]}"
    else:
        right = first["msg"].split(", unable to")[0]
        for words, plain in _PLAIN.items():
            right = right.replace(words, plain, 1)
    return f"{key or 'the content'} {right}, got {value if len(value) <= 200 else value[:200] + '…'}"
