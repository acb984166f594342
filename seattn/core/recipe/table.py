"""The table of all keys of a recipe, read from the record that holds them."""

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from pydantic import TypeAdapter

from seattn.core.errors import UserError
from seattn.core.recipe.keys import Recipe

Schema = Mapping[str, Any]
_COLUMNS = ("key", "type", "default", "bounds", "meaning")
_TYPES = {"boolean": "true or false", "string": "text", "object": "mapping"}  # and integer, number, null


@dataclass(frozen=True)
class Key:
    """A key of a recipe, in words.

    Args:
        key: its name; the keys under `seattn:` begin with "seattn.".
        type: the kinds of value that it takes.
        required: whether a recipe must have it.
        default: the value where a recipe does not have it; None, too, for a key that is required.
        bounds: the values that are allowed; "" where all of that type are.
        meaning: what it does.
    """

    key: str
    type: str
    required: bool
    default: Any
    bounds: str
    meaning: str

    def cells(self) -> tuple[str, ...]:
        """The texts of a row of the table: key, type, default, bounds, meaning."""
        default = "required" if self.required else _shown(self.default)
        return self.key, self.type, default, self.bounds, self.meaning


def recipe_keys(pattern: str | None = None) -> list[Key]:
    """The keys in the order of the recipe, those under `seattn:` last.

    Args:
        pattern: a pattern such as "lr*", or a part of the names; None: all keys.

    Raises:
        UserError: if no key fits; it names the nearest one.
    """
    schema = TypeAdapter(Recipe).json_schema()
    keys = [*_keys(schema), *_keys(schema["$defs"]["OurKeys"], prefix="seattn.")]
    wanted = "*" if pattern is None else pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    found = [key for key in keys if fnmatchcase(key.key, wanted)]
    if not found:
        names = {name: key.key for key in keys for name in (key.key, key.key.removeprefix("seattn."))}
        near = difflib.get_close_matches((pattern or "").strip("*"), names, n=1)
        hint = f"did you mean {names[near[0]]!r}?" if near else "`seattn recipe keys` shows all"
        raise UserError(f"no key of a recipe fits {pattern!r}; {hint}")
    return found


def markdown_table(keys: Iterable[Key]) -> str:
    """The table in Markdown."""
    rows = [_COLUMNS, ("---",) * len(_COLUMNS)]
    for key in keys:
        name, kind, default, *words = (cell.replace("|", "\\|") for cell in key.cells())
        rows.append((f"`{name}`", kind, default if key.required else f"`{default}`", *words))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _keys(schema: Schema, prefix: str = "") -> list[Key]:
    required = schema.get("required", ())
    return [
        Key(
            key=prefix + name,
            type=_type(value),
            required=name in required,
            default=value.get("default", None if name in required else {}),  # a factory makes the empty mappings
            bounds=_bounds(value),
            meaning=" ".join(value["description"].split()),
        )
        for name, value in schema["properties"].items()
        if "$ref" not in value  # the mapping of the keys under `seattn:`
    ]


def _type(schema: Schema) -> str:
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    if "prefixItems" in schema:
        return f"[{', '.join(map(_type, schema['prefixItems']))}]"
    if schema["type"] == "array":
        return f"[{_type(schema['items'])}, …]"
    name = str(schema["type"])
    return _TYPES.get(name, name)


def _bounds(schema: Schema) -> str:
    """The bounds in words; those of the parts of a list or mapping, one after the other where they differ."""
    if "enum" in schema:
        return "one of " + ", ".join(map(_shown, schema["enum"]))
    parts = [*schema.get("anyOf", ()), *schema.get("prefixItems", ())]
    parts += [part for name in ("items", "additionalProperties") if isinstance(part := schema.get(name), Mapping)]
    if parts:
        return "; ".join(dict.fromkeys(filter(None, map(_bounds, parts))))
    # pydantic has its own names for the bounds of a value that a validator changes first.
    least, above = schema.get("minimum", schema.get("ge")), schema.get("exclusiveMinimum", schema.get("gt"))
    most, below = schema.get("maximum", schema.get("le")), schema.get("exclusiveMaximum", schema.get("lt"))
    if least is not None and most is not None:
        return f"{least:,} to {most:,}"
    named = {"at least": least, "above": above, "at most": most, "below": below}
    return ", ".join(f"{word} {value:,}" for word, value in named.items() if value is not None)


def _shown(value: object) -> str:
    """A value as YAML has it, its numbers with six digits."""
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if value and isinstance(value, str) else json.dumps(value)
