"""The `seattn` command: its root, and one line for each command, in the order of `--help`.

Everything that needs torch is imported inside the commands: `--help`, completion and usage errors do not wait for it.
"""

import logging
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Annotated, Any

import typer
from safetensors import SafetensorError
from typer.core import TyperCommand, TyperGroup

from seattn.cli.deploy import export, prune, serve_app
from seattn.cli.experiments import ablate, search
from seattn.cli.hub import import_weights, publish, pull, space, stage, verify
from seattn.cli.installation.report import info
from seattn.cli.nets import demo, evaluate, list_models, predict, profile
from seattn.cli.reports import calibrate, explain, report
from seattn.cli.training import finetune, pretrain, recipe_keys, timm_script, train
from seattn.core.client import bound_waits
from seattn.core.errors import UserError
from seattn.core.files import describe_system_error

# Since 0.16, typer has its own copy of click: this is the ClickException of the copy that typer uses.
ClickException: type[Exception] = next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException")
_RESUMED_BY_OPTION = ("train", "finetune", "pretrain")
_RESUMED_BY_ITSELF = ("ablate", "search")


class _Command(TyperCommand):
    """A command whose flags show no type in `--help`: they take no value."""

    def get_params(self, ctx: Any) -> Any:
        """The parameters, each flag with an empty type."""
        return _without_types_of_flags(super().get_params(ctx))

    def invoke(self, ctx: Any) -> Any:
        """Run the command: its arguments have been read and are right."""
        bound_waits()
        return super().invoke(ctx)


class _Group(TyperGroup):
    """A command that has subcommands, with flags as in `_Command`."""

    def get_params(self, ctx: Any) -> Any:
        """The parameters, each flag with an empty type."""
        return _without_types_of_flags(super().get_params(ctx))


def _without_types_of_flags(params: Any) -> Any:
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
    return params


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"seattn {version('seattn')}")
        raise typer.Exit


def root(
    context: typer.Context,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """SE, ECA and CBAM attention for timm: trained CIFAR ResNets, their scores and their training."""
    _help_without_command(context)


def hub(context: typer.Context) -> None:
    """Weights for the Hugging Face Hub: stage a folder, publish it, pull and verify a repository."""
    _help_without_command(context)


def recipe(context: typer.Context) -> None:
    """Recipes of trainings: the keys that they may have."""
    _help_without_command(context)


def _help_without_command(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


def _group(callback: Callable[..., None], commands: Sequence[tuple[str, Callable[..., None], str]]) -> typer.Typer:
    """A group of (name, function, example) in the order of its `--help`."""
    group = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode="rich")
    group.callback(cls=_Group, invoke_without_command=True)(callback)
    for name, command, example in commands:
        unparsed = {"ignore_unknown_options": True, "allow_interspersed_args": False} if name == "timm" else None
        group.command(name, cls=_Command, epilog=f"Example: seattn {example}", context_settings=unparsed)(command)
    return group


app = _group(
    root,
    [
        ("demo", demo, "demo --out demo"),
        ("evaluate", evaluate, "evaluate se_resnet20_cifar --data-dir data --split test"),
        ("predict", predict, "predict photo.jpg --model se_resnet18_cifar --topk 3"),
        ("list", list_models, "list 'se_*' --pretrained"),
        ("profile", profile, "profile se_resnet20_cifar --against resnet20_cifar"),
        ("finetune", finetune, "finetune se_resnet20_cifar --data-dir photos --out runs/photos"),
        ("pretrain", pretrain, "pretrain resnet20_cifar.cifar10.simclr --data-dir data"),
        ("ablate", ablate, "ablate attention --data-dir data"),
        ("search", search, "search se_resnet20_cifar.cifar10 --data-dir data --trials 20"),
        ("report", report, "report runs/a runs/b --data-dir data"),
        ("calibrate", calibrate, "calibrate runs/a --data-dir data"),
        ("explain", explain, "explain se_resnet20_cifar photo.jpg --out explain"),
        ("export", export, "export se_resnet20_cifar --to onnx --data-dir data"),
        ("app", serve_app, "app se_resnet20_cifar --port 7860"),
        ("prune", prune, "prune se_resnet20_cifar --ratio 0.3 --data-dir data --out runs/small"),
        ("import", import_weights, "import checkpoint.pth.tar my_net --model se_resnet20_cifar.cifar10"),
        ("info", info, "info"),
        ("timm", timm_script, "timm validate.py --model se_resnet20_cifar --data-dir data"),
        ("train", train, "train se_resnet20_cifar.cifar10 --data-dir data --epochs 30"),
    ],
)
app.add_typer(
    _group(
        hub,
        [
            ("stage", stage, "hub stage se_resnet20_cifar.cifar10 staged"),
            ("space", space, "hub space se_resnet20_cifar.cifar10 my_space"),
            ("verify", verify, "hub verify staged --data-dir data"),
            ("publish", publish, "hub publish se_resnet20_cifar.cifar10 --org ORG --dry-run"),
            ("pull", pull, "hub pull ORG/se_resnet20_cifar.cifar10"),
        ],
    ),
    name="hub",
)
app.add_typer(_group(recipe, [("keys", recipe_keys, "recipe keys 'lr*'")]), name="recipe")


def run(args: Sequence[str] | None = None) -> int:
    """Run the command line on `args`; returns the exit code."""
    try:
        with _log_to_stderr(), warnings.catch_warnings():
            if not sys.warnoptions:  # python -W shows the warnings of libraries: they are for programmers
                warnings.simplefilter("ignore")
            code = app(args=None if args is None else list(args), prog_name="seattn", standalone_mode=False)
    except UserError as error:
        return _fail(str(error))
    except BrokenPipeError:  # the reader of the output has ended
        raise
    except (OSError, SafetensorError) as error:
        return _fail(describe_system_error(error))
    except ClickException as error:
        return _fail(error.format_message() if hasattr(error, "format_message") else str(error))
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    if code == 130:  # also the code that typer returns for an interruption
        print(f"seattn: {_interrupted(sys.argv[1:] if args is None else args)}", file=sys.stderr)
    return code if isinstance(code, int) else 0


def _fail(message: str) -> int:
    print(f"seattn: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _interrupted(args: Sequence[str]) -> str:
    """The line after Ctrl-C: whether the command can be resumed, and how."""
    command = args[0] if args else ""
    if command in _RESUMED_BY_ITSELF:
        return f"interrupted; the same command resumes it: seattn {shlex.join(args)}"
    if command in _RESUMED_BY_OPTION:
        resumed = shlex.join([*args, *(() if "--resume" in args else ("--resume",))])
        return f"interrupted; this command resumes the run after its last finished epoch: seattn {resumed}"
    return "interrupted"


@contextmanager
def _log_to_stderr() -> Iterator[None]:
    """Show the package's messages as plain lines on stderr while a command runs.

    With several processes only the first one shows messages below errors.
    """
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
