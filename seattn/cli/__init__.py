"""The command line: one file for each group of commands; here the options that several commands share."""

import re
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from seattn.core.errors import UserError


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


LARGEST_BATCH, LARGEST_SEED, MOST_EPOCHS, MOST_WORKERS = 1_000_000, 2**32 - 1, 1_000_000, 1024  # as in recipes

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
Tta = Annotated[
    Literal["none", "flip", "crops"],
    typer.Option(
        help="Average the probabilities over views of each image: flip adds its mirror image, crops adds four crops "
        "that are shifted by a 16th of its side; takes 2 or 5 times as long."
    ),
]
Ensemble = Annotated[
    Literal["average", "vote"] | None,
    typer.Option(
        help="How several models of the same classes answer together: by the mean of their probabilities, or by the "
        "class of most of them, where the mean decides ties.",
        show_default="none: one model",
    ),
]
Examples = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder of at most 24 images to choose from.",
        show_default="images of the packaged sample, for nets that know its classes",
    ),
]
UnknownBelow = Annotated[
    float, typer.Option(min=0, max=1, metavar="P", help='Answer "unknown" if no class reaches this probability.')
]
ClassMap = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Text file with the class folder of each output of the model, one on each line.",
        show_default="by the names of the folders",
    ),
]
FinetuningEpochs = Annotated[
    int | None, typer.Option(min=1, max=MOST_EPOCHS, help="Epochs to train.", show_default="by the number of images")
]
FinetuningBatchSize = Annotated[
    int | None,
    typer.Option(min=2, max=LARGEST_BATCH, help="Images in a batch.", show_default="by the number of images"),
]
FinetuningSeed = Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the split and of the training.")]
BatchSize = Annotated[int, typer.Option(min=1, max=LARGEST_BATCH, help="Images in one forward pass.")]
Workers = Annotated[int, typer.Option(min=0, max=MOST_WORKERS, help="Processes that read images; 0 reads in this one.")]
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
    typer.Option(
        metavar="FILE", help="Table of the test images, as for --labels.", show_default="a tenth of each class"
    ),
]


def check_ensemble(models: Sequence[str], ensemble: str | None, checkpoint: Path | None) -> None:
    """Raise UserError unless several different models and --ensemble are given together, or one model without it."""
    if len(models) > 1 and ensemble is None:
        raise UserError(f"{len(models)} models are given; --ensemble average or vote lets them answer together")
    if len(models) == 1 and ensemble is not None:
        raise UserError("--ensemble needs two models or more")
    if len(set(models)) < len(models):
        raise UserError(f"{next(name for name in models if models.count(name) > 1)} is given twice")
    if len(models) > 1 and checkpoint is not None:
        raise UserError("--checkpoint is for one model; give folders or names of models with their own weights")
