"""Entry point of the `seattn` command and of `python -m seattn`: every error of the user becomes one line."""

import io
import os
import sys
from collections.abc import Sequence

EXTRAS = {"jinja2", "matplotlib", "pydantic", "rich", "scipy", "sklearn", "typer", "yaml"}
MISSING_EXTRAS = 'the command line needs extra packages: pip install "seattn[cli]"'


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line on `args` (None: the arguments of the process); returns the exit code.

    2 is an error of the user or of the system (a full disk), with one line on stderr; 130 an interruption. Any other
    exception is a bug and is raised.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # names of files and classes that the encoding does not have
    try:
        from seattn.cli.main import run

        code = run(args)
        sys.stdout.flush()
        return code
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in EXTRAS:
            raise
        print(f"seattn: {MISSING_EXTRAS}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # before the command has begun
        return 130
    except BrokenPipeError:
        # The reader has ended, as in `seattn list | head -1`.
        _discard_output()
        return 141  # the shell's code for a process that SIGPIPE ended
    except OSError as error:  # the output is a file on a full disk
        _discard_output()
        print(f"seattn: cannot write the output: {error.strerror}", file=sys.stderr)
        return 2


def _discard_output() -> None:
    """Discard the rest of stdout: at exit Python would write it and report the same error again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
