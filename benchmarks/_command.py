"""The commands of this folder: a user's mistake is one line on stderr and exit code 2."""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import NoReturn

from seattn.core.errors import UserError

Main = Callable[[Sequence[str] | None], int]


class Parser(argparse.ArgumentParser):
    """A parser whose usage errors are UserErrors; `description` keeps its lines."""

    def __init__(self, description: str | None) -> None:
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help lists what there is")


def command(name: str) -> Callable[[Main], Callable[..., int]]:
    """Decorate a main that takes the arguments, or None for those of the process, and gives the exit code."""

    def decorate(main: Main) -> Callable[..., int]:
        @wraps(main)
        def run(arguments: Sequence[str] | None = None) -> int:
            try:
                return main(arguments)
            except UserError as error:
                print(f"{name}: {error}", file=sys.stderr)
                return 2

        return run

    return decorate
