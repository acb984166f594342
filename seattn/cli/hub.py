"""The commands about weights as files: `hub` and its commands for the Hugging Face Hub, and `import`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seattn.core.errors import UserError

if TYPE_CHECKING:
    from seattn.hub.verification import Verification

WeightsName = Annotated[
    str | None,
    typer.Option("--name", metavar="ARCH.TAG", help="Name for the weights of a run.", show_default="NAME"),
]


def stage(
    name: Annotated[str, typer.Argument(help="Weights of this package, or the folder of a finished run.")],
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A new or empty folder, or one that was staged for the same name.")
    ],
    weights_name: WeightsName = None,
) -> None:
    """Build the folder of a repository: weights, config, card, recipe, rows, golden tensors and checksums."""
    from seattn.hub.staging import stage as stage_folder

    weights, run = _weights(name, weights_name)
    for file in stage_folder(weights, folder, run=run):
        print(folder / file)


def space(
    name: Annotated[
        str, typer.Argument(help="Weights of this package, the folder of a run, a model directory, or hf-hub:org/name.")
    ],
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A new or empty folder, or one that was staged for the same Space.")
    ],
    space_name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Name of the Space.", show_default="the net's")
    ] = None,
    examples: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of at most 24 images, which are made smaller and lose their EXIF data.",
            show_default="CIFAR-10's images, for nets that know its classes",
        ),
    ] = None,
    license_id: Annotated[
        str | None,
        typer.Option(
            "--license", metavar="ID", help="Licence, such as mit.", show_default="apache-2.0 for packaged weights"
        ),
    ] = None,
) -> None:
    """Build the folder of a Space, a page on the Hub that classifies images: the app, requirements, README, examples.

    The weights of a run or model directory are copied into it; others are loaded by name when the Space starts.
    """
    from seattn.hub.space import is_released, stage_space

    for file in stage_space(name, folder, name=space_name, examples=examples, license_id=license_id):
        print(folder / file)
    print(f"try it: python {folder / 'app.py'}\npublish it: hf upload --repo-type space USER/NAME {folder}")
    if not is_released():
        print(
            "seattn: requirements.txt names a development version of seattn; where PyPI does not have it, give the "
            "Space a wheel of it",
            file=sys.stderr,
        )


def verify(
    name: Annotated[
        str, typer.Argument(metavar="DIR|NAME|REPO", help="A staged folder, weights of this package, or ORG/NAME.")
    ],
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Also score the weights on DIR/test/CLASS/IMAGE and compare with the card.", show_default="none"
        ),
    ] = None,
) -> None:
    """Check a folder or repository: checksums, weights, outputs, card; with --data-dir the accuracy, too."""
    import tempfile

    from seattn.hub.staging import packaged_name
    from seattn.hub.staging import stage as stage_folder
    from seattn.hub.verification import verify as verify_folder

    if _is_repository(name):
        from seattn.hub.publishing import repository, verify_repository

        result = verify_repository(repository(name), data_dir=data_dir)
    elif Path(name).is_dir() or "/" in name:
        result = verify_folder(Path(name), data_dir=data_dir)
    else:
        with tempfile.TemporaryDirectory() as folder:
            stage_folder(packaged_name(name), Path(folder) / "stage")
            result = verify_folder(Path(folder) / "stage", data_dir=data_dir)
    _print_checks(name, result)


def publish(
    name: Annotated[str, typer.Argument(help="Weights of this package, or the folder of a finished run.")],
    org: Annotated[str, typer.Option(help="User or organisation to which the token may write.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the changes.")] = False,
    weights_name: WeightsName = None,
) -> None:
    """Upload the files of `stage` to the Hub's repository ORG/NAME in one commit; then download and verify it."""
    from seattn.hub.publishing import publish as publish_weights

    weights, run = _weights(name, weights_name)
    result = publish_weights(weights, org, run=run, private=private, dry_run=dry_run)
    table = Table("file", "bytes", "on the Hub", title=Text(result.repo))
    table.columns[0].overflow, table.columns[1].justify = "fold", "right"
    for change in result.changes:
        table.add_row(Text(change.path), "" if change.size is None else f"{change.size:,}", change.state)
    Console().print(table)
    if result.verification is None:
        print("dry run: nothing was written")
        return
    print(
        f"published as {result.url}" if result.changed else f"{result.url} has these files already: no commit was made"
    )
    _print_checks("downloaded again", result.verification)


def pull(
    name: Annotated[str, typer.Argument(metavar="NAME|REPO", help="Weights of this package, or ORG/NAME.")],
    cache_dir: Annotated[Path | None, typer.Option(help="Folder of the cache.", show_default="$HF_HUB_CACHE")] = None,
) -> None:
    """Download a repository to the cache and check it, for use with HF_HUB_OFFLINE=1."""
    from seattn.hub.publishing import pull as pull_repository
    from seattn.hub.publishing import repository

    folder = pull_repository(name, cache_dir=cache_dir)
    where = "" if cache_dir is None else f', cache_dir="{cache_dir}"'
    print(f'{folder}\nin Python: timm.create_model("hf-hub:{repository(name)}", pretrained=True{where})')


def import_weights(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint of timm's train.py, or a run's folder.")],
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="New folder for model.safetensors and config.json.")],
    model: Annotated[str | None, typer.Option(help="arch or arch.tag.", show_default="as in the checkpoint")] = None,
    no_ema: Annotated[bool, typer.Option("--no-ema", help="Take the trained weights, not their average.")] = False,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Text file: the name of each output on a line.", show_default="those of the run or tag"
        ),
    ] = None,
) -> None:
    """Convert a checkpoint to a folder that timm loads; only weights and plain values are read from its pickle."""
    from seattn.models.checkpoints.convert import import_checkpoint

    import_checkpoint(checkpoint, folder, model=model, averaged=not no_ema, labels=labels)
    print(f'in Python: import seattn, timm; model = timm.create_model("local-dir:{folder}", pretrained=True).eval()')


def _is_repository(name: str) -> bool:
    """hf-hub:ORG/NAME, or ORG/NAME where there is no such folder; ./ORG/NAME is a folder."""
    return name.startswith("hf-hub:") or (name.count("/") == 1 and name[0] not in "./" and not Path(name).is_dir())


def _print_checks(title: str, result: "Verification") -> None:
    table = Table("check", "result", title=Text(title))
    table.columns[1].overflow = "fold"
    for check, detail in result.checks:
        table.add_row(Text(check), Text(detail))
    Console().print(table)


def _weights(name: str, weights_name: str | None) -> tuple[str, Path | None]:
    """The name of the weights, and the folder of the run that they are from, if there is one."""
    from seattn.models.listing import our_models

    arch = name.split(".")[0]
    if arch in our_models() or not Path(name).is_dir():
        if weights_name is not None:
            raise UserError(f"--name is for the weights of a run; {name} has a name already")
        return name, None
    if weights_name is None:
        raise UserError(f"give --name ARCH.TAG for the weights of {name}")
    return weights_name, Path(name)
