"""The `seattn` command: its root, and a line for each command, in the order of `--help`.

Whatever needs torch is imported inside the commands, so that `--help` and usage errors do not wait for it.
"""

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Annotated

import typer

from seattn.cli.experiments import ablate, search
from seattn.cli.hub import hub, import_weights
from seattn.cli.nets import demo, evaluate, list_models, predict, profile
from seattn.cli.reports import explain, report
from seattn.cli.training import finetune, timm_script, train
from seattn.core.client import bound_waits
from seattn.core.errors import UserError

# typer has carried its own copy of click since 0.16: this is ClickException of whichever it uses.
ClickException: type[Exception] = next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


def run(args: Sequence[str] | None = None) -> int:
    """Run the command line on `args`; the exit code."""
    try:
        with _log_to_stderr():
            if "--help" not in (sys.argv if args is None else args):
                bound_waits()
            code = app(args=None if args is None else list(args), prog_name="seattn", standalone_mode=False)
    except UserError as error:
        return _fail(str(error))
    except ClickException as error:
        return _fail(error.format_message() if hasattr(error, "format_message") else str(error))
    except typer.Abort:
        return 130
    return code if isinstance(code, int) else 0


def _fail(message: str) -> int:
    print(f"seattn: {' '.join(message.split())}", file=sys.stderr)
    return 2


@contextmanager
def _log_to_stderr() -> Iterator[None]:
    """The package's messages as plain lines on stderr while a command runs; of many processes, the first one's."""
    logger = logging.getLogger("seattn")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR if int(os.environ.get("RANK", 0)) else logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"seattn {version('seattn')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """SE, ECA and CBAM attention for timm: trained CIFAR ResNets, their scores and their training."""
    if context.invoked_subcommand is None:
        print(context.get_help())


for command in (demo, evaluate, predict):
    app.command()(command)
app.command("list")(list_models)
app.command()(profile)
app.command()(finetune)
app.command()(ablate)
app.command()(search)
app.command()(report)
app.command()(explain)
app.add_typer(hub, name="hub")
app.command("import")(import_weights)
app.command("timm", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})(timm_script)
app.command()(train)
