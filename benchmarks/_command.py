"""What the commands of this folder share: a user's mistake or a full disk gives one line on stderr and exit code 2."""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import NoReturn

from seattn.core.errors import UserError
from seattn.core.files import describe_system_error

Main = Callable[[Sequence[str] | None], int]


class Parser(argparse.ArgumentParser):
    """A parser that raises UserError for wrong usage and keeps the lines of its description."""

    def __init__(self, description: str | None) -> None:
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def command(name: str) -> Callable[[Main], Callable[..., int]]:
    """Decorate a function that takes the arguments (None: those of the process) and returns the exit code."""

    def decorate(main: Main) -> Callable[..., int]:
        @wraps(main)
        def run(arguments: Sequence[str] | None = None) -> int:
            try:
                return main(arguments)
            except UserError as error:
                message = str(error)
            except BrokenPipeError:  # the reader of the output has ended
                raise
            except OSError as error:
                message = describe_system_error(error)
            print(f"{name}: {message}", file=sys.stderr)
            return 2

        return run

    return decorate
