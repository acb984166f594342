"""Errors of the user, each one line that names the value, the place and the remedy."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input. The command line prints its message alone on stderr and exits with code 2."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its type if it has no message."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def counted(number: int, noun: str) -> str:
    """A number and its noun, as people write them: "1 epoch", "1,200 images"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """A hint for an unknown `name`: the nearest of the `known` names, with `prefix` before it, or all of them."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {prefix + near[0]!r}?" if near else f"known: {', '.join(names)}"
