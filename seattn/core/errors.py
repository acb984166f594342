"""Errors of the user, each one line that names the value, the place and the remedy."""

import difflib
import re
from collections.abc import Iterable, Sequence
from itertools import takewhile


class UserError(ValueError):
    """Bad input. The command line prints its message alone on stderr and exits with code 2."""


# What libraries advise the programmer who calls them; a user of the command line cannot follow it, or should not.
_ADVICE = re.compile(
    r"\w=(True|False|None)\b|weights_only|torch\.(load|save)|internal miniz error|\bplease\b|This could be because",
    re.IGNORECASE,
)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, up to a sentence that advises programmers; or the name of its type."""
    line = (str(error).strip().splitlines() or [""])[0]
    sentences = re.split(r"(?<=[.!?])\s+", line)
    return " ".join(takewhile(lambda sentence: not _ADVICE.search(sentence), sentences)) or type(error).__name__


def counted(number: int, noun: str) -> str:
    """A number and its noun, as people write them: "1 epoch", "1,200 images"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def shorten(names: Sequence[str]) -> str:
    """The first three of `names`, as one text."""
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """A hint for an unknown `name`: the nearest of the `known` names, with `prefix` before it, or up to 60 of them."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    shown = ", ".join(names[:60]) + (", …" if len(names) > 60 else "")
    return f"did you mean {prefix + near[0]!r}?" if near else f"known: {shown}"
