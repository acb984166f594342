"""The command line: one file for each group of commands; here the options that several commands share."""

import re
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any

import typer


def _list_configs(kind: str) -> Callable[[bool], None]:
    """The callback of an option --list, which prints the packaged files of that kind and ends the command."""

    def show(wanted: bool) -> None:
        if wanted:
            from seattn.core.recipe import packaged_configs

            for name, path in packaged_configs(kind).items():
                lines = takewhile(lambda line: line.startswith("# "), path.read_text(encoding="utf-8").splitlines())
                first_sentence, *_ = re.split("(?<=[.?]) ", " ".join(line.removeprefix("# ") for line in lines))
                print(f"{name}: {first_sentence}")
            raise typer.Exit

    return show


def _option_list(kind: str, what: str) -> Any:
    return typer.Option(
        "--list", callback=_list_configs(kind), is_eager=True, help=f"List the {what} of this package, and exit."
    )


Checkpoint = Annotated[
    Path | None,
    typer.Option(
        help="Weights to use instead: .safetensors or .pth.tar.", show_default="the model's own", metavar="FILE"
    ),
]
Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1 …")]
TrainingDevice = Annotated[
    str | None, typer.Option(help="Where to compute: cpu, cuda, cuda:1 …", show_default="cuda where there is one")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
NoExif = Annotated[
    bool, typer.Option("--no-exif", help="Do not rotate images by their EXIF orientation; timm does not rotate them.")
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out unreadable images, with a warning.")]
ListRecipes = Annotated[bool, _option_list("", "recipes")]
ListStudies = Annotated[bool, _option_list("ablations", "studies")]
ListSearches = Annotated[bool, _option_list("searches", "searches")]
Labels = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Table of images below --data-dir and their classes (CSV with columns such as filename, label).",
        show_default="classes are folders",
    ),
]
TestLabels = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Such a table of the test images.", show_default="a tenth of each class"),
]
LARGEST_BATCH, LARGEST_SEED, MOST_EPOCHS, MOST_WORKERS = 1_000_000, 2**32 - 1, 1_000_000, 1024  # as in recipes
