"""Factors of a study: each with levels, the first its reference; a design says which combinations are run.

```yaml
factors:
  se: {yes: {}, no: {model: resnet20_cifar.cifar10}}
  augmentation: {yes: {}, no: {seattn.crop_padding: 0, hflip: 0.0}}
design: full # every combination; or one_removed: the references, and each other level by itself
```
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

from seattn.core.errors import UserError

DESIGNS = ("full", "one_removed")
Changes = dict[str, Any]


@dataclass(frozen=True)
class Effect:
    """What a level gives against its factor's first, all others alike: `pairs` of variants, the first's second."""

    name: str
    pairs: tuple[tuple[str, str], ...]


def label(name: object) -> str:
    """A key of the YAML as it was meant: `yes` and `no` are truth values there."""
    return {True: "yes", False: "no"}[name] if isinstance(name, bool) else str(name)


def check_changes(what: str, changes: Mapping[Any, Any]) -> None:
    """See that `changes` names recipe keys, and not the seed.

    Raises:
        UserError: naming `what` they are of.
    """
    for key in changes:
        if not isinstance(key, str):
            raise UserError(f"{what}: a recipe key must be a word, got {key!r}")
        if key == "seed":
            raise UserError(f"{what} must not set seed; the key seeds of the file does")


def expand(factors: object, design: object) -> tuple[dict[str, Changes], tuple[Effect, ...]]:
    """The variants' changes by name, and the main effects, which the full design alone has.

    Raises:
        UserError: for factors of another form, an unknown design, or two factors that change one key.
    """
    if design not in DESIGNS:
        raise UserError(f"design must be one of {', '.join(DESIGNS)}, got {design!r}")
    levels = _levels(factors)
    _check_apart(levels)
    first = {factor: next(iter(of)) for factor, of in levels.items()}
    if design == "full":
        chosen = [dict(zip(levels, combination, strict=True)) for combination in product(*levels.values())]
        names = {_name(choice): choice for choice in chosen}
        effects = tuple(
            _effect(factor, level, first[factor], chosen) for factor, of in levels.items() for level in list(of)[1:]
        )
    else:
        others = [(factor, level) for factor, of in levels.items() for level in list(of)[1:]]
        names = {_name(first): first, **{_name({f: level}): {**first, f: level} for f, level in others}}
        effects = ()
    return {name: _merged(levels, choice) for name, choice in names.items()}, effects


def _levels(factors: object) -> dict[str, dict[str, Changes]]:
    if not (isinstance(factors, dict) and all(isinstance(of, dict) and len(of) >= 2 for of in factors.values())):
        raise UserError("factors must map a name to its levels, two or more, each with the keys that it replaces")
    levels = {label(factor): {label(level): changes for level, changes in of.items()} for factor, of in factors.items()}
    for factor, of in levels.items():
        for level, changes in of.items():
            if not isinstance(changes, dict):
                raise UserError(f"factor {factor}, level {level}: must map the keys to replace, {{}} for none")
            check_changes(f"factor {factor}, level {level}", changes)
    return levels


def _check_apart(levels: Mapping[str, Mapping[str, Changes]]) -> None:
    """Where two factors change one key, the later one would hide the other's level."""
    keys = {factor: {key for changes in of.values() for key in changes} for factor, of in levels.items()}
    for one, other in combinations(keys, 2):
        for a, b in product(sorted(keys[one]), sorted(keys[other])):
            if f"{a}.".startswith(f"{b}.") or f"{b}.".startswith(f"{a}."):
                raise UserError(f"the factors {one} and {other} both change {max(a, b, key=len)}; make them one factor")


def _effect(factor: str, level: str, first: str, chosen: list[dict[str, str]]) -> Effect:
    pairs = tuple((_name(c), _name({**c, factor: first})) for c in chosen if c[factor] == level)
    return Effect(f"{factor}: {level} against {first}", pairs)


def _name(choice: Mapping[str, str]) -> str:
    return ", ".join(f"{factor}={level}" for factor, level in choice.items())


def _merged(levels: Mapping[str, Mapping[str, Changes]], choice: Mapping[str, str]) -> Changes:
    return {key: value for factor, level in choice.items() for key, value in levels[factor][level].items()}
