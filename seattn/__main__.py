"""Entry point of the `seattn` command and of `python -m seattn`: where every error of the user becomes one line."""

import os
import sys
from collections.abc import Sequence

EXTRAS = {"jinja2", "matplotlib", "pydantic", "rich", "scipy", "sklearn", "typer", "yaml"}
MISSING_EXTRAS = 'the command line needs extra packages: pip install "seattn[cli]"'


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line on `args` (None: those of the process); the exit code.

    2 is the user's error, told in one line on stderr; 130 an interruption. Any other exception is a bug and passes.
    """
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
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has gone, as in `seattn list | head -1`; else Python complains once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # what the shell shows for a process that SIGPIPE ended


if __name__ == "__main__":
    sys.exit(main())
