"""The values that one recipe key may take in a search: numbers in a range, or choices."""

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seattn.core.errors import UserError

if TYPE_CHECKING:
    from optuna.trial import Trial

_FORM = "{float: [low, high]}, {int: [low, high]} or {choice: [a, b]}"
_OPTIONS = {"float": ("log", "step"), "int": ("log", "step"), "choice": ()}


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones where `whole`.

    Args:
        log: drawn evenly over the logarithm.
        step: only `low`, `low + step`, …; None: any, or any whole one.
    """

    low: float
    high: float
    log: bool
    step: float | None
    whole: bool

    def suggest(self, trial: "Trial", key: str) -> Any:
        """A value for the recipe, which the study keeps for `key`."""
        if self.whole:
            return trial.suggest_int(key, int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return trial.suggest_float(key, self.low, self.high, log=self.log, step=self.step)

    def ends(self) -> tuple[Any, ...]:
        """What a recipe must take for it to take everything between, as the study keeps it."""
        return self.low, self.high

    def grid(self) -> tuple[Any, ...] | None:
        """All values as the study keeps them; None if they cannot be counted."""
        step = self.step or (1 if self.whole else None)
        if step is None:
            return None
        count = round((self.high - self.low) / step) + 1
        return tuple(min(self.low + i * step, self.high) for i in range(count))

    def value(self, kept: Any) -> Any:
        """The recipe's value for what the study keeps."""
        return kept

    def __str__(self) -> str:
        step = "" if self.step is None else f" in steps of {self.step:g}"
        return f"{self.low:g} to {self.high:g}{step}{', log' if self.log else ''}"


@dataclass(frozen=True)
class Choice:
    """One of `values`, which may be anything that a recipe takes."""

    values: tuple[Any, ...]

    def _kept(self) -> tuple[Any, ...]:
        """What a study can keep: lists and mappings as JSON."""
        return tuple(json.dumps(value) if isinstance(value, list | dict) else value for value in self.values)

    def suggest(self, trial: "Trial", key: str) -> Any:
        """As `Range.suggest`."""
        return self.value(trial.suggest_categorical(key, self._kept()))

    def ends(self) -> tuple[Any, ...]:
        """As `Range.ends`."""
        return self._kept()

    def grid(self) -> tuple[Any, ...]:
        """As `Range.grid`."""
        return self._kept()

    def value(self, kept: Any) -> Any:
        """As `Range.value`."""
        return self.values[self._kept().index(kept)]

    def __str__(self) -> str:
        return "one of " + ", ".join(map(str, self._kept()))


Dimension = Range | Choice


def parse_dimension(raw: object) -> Dimension:
    """{float: [low, high], log: true}, {int: [low, high], step: 2} or {choice: [a, b]}.

    Raises:
        UserError: saying what is wrong, without the key, which the caller knows.
    """
    kinds = [kind for kind in _OPTIONS if isinstance(raw, Mapping) and kind in raw]
    if len(kinds) != 1 or not isinstance(raw, Mapping):
        raise UserError(f"must be {_FORM}, got {raw!r}")
    kind = kinds[0]
    for option in raw:
        if option != kind and option not in _OPTIONS[kind]:
            near = difflib.get_close_matches(str(option), _OPTIONS[kind], n=1)
            known = (
                f"did you mean {near[0]!r}?" if near else f"{kind} takes {' and '.join(_OPTIONS[kind]) or 'no other'}"
            )
            raise UserError(f"unknown key {option!r}; {known}")
    if kind == "choice":
        return _choice(raw["choice"])
    return _range(raw[kind], raw.get("log", False), raw.get("step"), whole=kind == "int")


def _choice(values: object) -> Choice:
    if not isinstance(values, list) or len(values) < 2:
        raise UserError(f"choice must be a list of two values or more, got {values!r}")
    if any(value in values[:i] for i, value in enumerate(values)):
        raise UserError(f"the values of choice must differ, got {values!r}")
    return Choice(tuple(values))


def _range(bounds: object, log: object, step: object, *, whole: bool) -> Range:
    kind = "int" if whole else "float"
    if not isinstance(bounds, list) or len(bounds) != 2:
        raise UserError(f"{kind} must be [low, high], got {bounds!r}")
    low, high = (_number(bound, whole=whole) for bound in bounds)
    if low >= high:
        raise UserError(f"{kind} must be [low, high] with low below high, got {bounds!r}")
    if not isinstance(log, bool):
        raise UserError(f"log must be true or false, got {log!r}")
    if log and low <= 0:
        raise UserError(f"log needs a lower bound above 0, got {bounds!r}")
    if log and step is not None:
        raise UserError("log and step exclude each other; leave one away")
    if step is None:
        return Range(low, high, log, None, whole)
    width = _number(step, whole=whole)
    count = (high - low) / width if width > 0 else math.nan
    if not (count >= 1 and math.isclose(count, round(count), rel_tol=1e-6)):
        raise UserError(f"step must divide the {high - low:g} between {low:g} and {high:g}, got {step!r}")
    return Range(low, high, log, width, whole)


def _number(value: object, *, whole: bool) -> float:
    """`value` as int or float; text too, as YAML 1.1 takes 1e-4, without a dot, for text."""
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        number = float(value)
        if whole and not number.is_integer():
            raise ValueError
        if not math.isfinite(number):
            raise ValueError
    except ValueError:
        raise UserError(f"{value!r} is not a {'whole' if whole else 'finite'} number") from None
    return int(number) if whole else number
