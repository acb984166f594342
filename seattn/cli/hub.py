"""`seattn hub`: folders for the Hugging Face Hub and what holds them to the truth."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from seattn.hub.verification import Verification

hub = typer.Typer(
    help="Weights for the Hugging Face Hub: stage a repository's folder, publish it, pull and verify one.",
    no_args_is_help=True,
)

Called = Annotated[str | None, typer.Option("--name", help="Of a run's weights: what they are to be called.")]


@hub.command()
def stage(
    name: Annotated[str, typer.Argument(help="Weights of this package, or the folder of a finished run.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New, empty, or an earlier stage of the same name.")],
    called: Called = None,
) -> None:
    """Build the folder of a repository: weights, config, card, recipe, rows, golden tensors and checksums."""
    from seattn.hub.staging import stage as stage_folder

    weights, run = _weights(name, called)
    for file in stage_folder(weights, folder, run=run):
        print(folder / file)


@hub.command()
def verify(
    name: Annotated[
        str, typer.Argument(metavar="DIR|NAME|REPO", help="A staged folder, weights of this package, or ORG/NAME.")
    ],
    data_dir: Annotated[
        Path | None, typer.Option(help="Score the weights on DIR/test/CLASS/IMAGE too, against the card's claim.")
    ] = None,
) -> None:
    """Hold that a folder is whole and does what it says: checksums, weights, outputs, card; with data, accuracy."""
    import tempfile

    from seattn.hub.staging import packaged_name
    from seattn.hub.staging import stage as stage_folder
    from seattn.hub.verification import verify as verify_folder

    if _is_repository(name):
        from seattn.hub.publishing import repository, verify_repository

        found = verify_repository(repository(name), data_dir=data_dir)
    elif Path(name).is_dir() or "/" in name:
        found = verify_folder(Path(name), data_dir=data_dir)
    else:
        with tempfile.TemporaryDirectory() as folder:
            stage_folder(packaged_name(name), Path(folder) / "stage")
            found = verify_folder(Path(folder) / "stage", data_dir=data_dir)
    _print_checks(name, found)


@hub.command()
def publish(
    name: Annotated[str, typer.Argument(help="Weights of this package, or the folder of a finished run.")],
    org: Annotated[str, typer.Option(help="User or organisation that the token may write to.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository a private one.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be changed.")] = False,
    called: Called = None,
) -> None:
    """Make the Hub's repository ORG/NAME what `stage` writes, in one commit; then download and verify it."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from seattn.hub.publishing import publish as publish_weights

    weights, run = _weights(name, called)
    found = publish_weights(weights, org, run=run, private=private, dry_run=dry_run)
    table = Table("file", "bytes", "on the Hub", title=Text(found.repo))
    table.columns[0].overflow, table.columns[1].justify = "fold", "right"
    for change in found.changes:
        table.add_row(Text(change.path), "" if change.size is None else f"{change.size:,}", change.state)
    Console().print(table)
    if found.verification is None:
        print("a dry run: nothing was written")
        return
    print(f"published as {found.url}" if found.changed else f"{found.url} has these files already: no commit was made")
    _print_checks("downloaded again", found.verification)


@hub.command()
def pull(
    name: Annotated[str, typer.Argument(metavar="NAME|REPO", help="Weights of this package, or ORG/NAME.")],
    cache_dir: Annotated[Path | None, typer.Option(help="Instead of HF_HUB_CACHE.")] = None,
) -> None:
    """Fetch a repository into the cache and check it, so that HF_HUB_OFFLINE=1 can use it."""
    from seattn.hub.publishing import pull as pull_repository
    from seattn.hub.publishing import repository

    folder = pull_repository(name, cache_dir=cache_dir)
    where = "" if cache_dir is None else f', cache_dir="{cache_dir}"'
    print(f'{folder}\nin Python: timm.create_model("hf-hub:{repository(name)}", pretrained=True{where})')


def import_weights(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint of timm's train.py, or a run's folder.")],
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="New folder for model.safetensors and config.json.")],
    model: Annotated[str | None, typer.Option(help="arch or arch.tag, where the checkpoint does not say.")] = None,
    no_ema: Annotated[bool, typer.Option("--no-ema", help="The weights as trained, not their average.")] = False,
    labels: Annotated[Path | None, typer.Option(help="Text file: the name of each output on a line.")] = None,
) -> None:
    """Make a checkpoint a folder that timm loads; of its pickle only weights and plain values are read."""
    from seattn.models.checkpoints.convert import import_checkpoint

    import_checkpoint(checkpoint, folder, model=model, averaged=not no_ema, labels=labels)
    print(f'in Python: import seattn, timm; model = timm.create_model("local-dir:{folder}", pretrained=True).eval()')


def _is_repository(name: str) -> bool:
    """hf-hub:ORG/NAME, or ORG/NAME where there is no such folder; ./ORG/NAME is a folder."""
    return name.startswith("hf-hub:") or (name.count("/") == 1 and name[0] not in "./" and not Path(name).is_dir())


def _print_checks(title: str, found: "Verification") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("check", "found", title=Text(title))
    table.columns[1].overflow = "fold"
    for check, detail in found.checks:
        table.add_row(Text(check), Text(detail))
    Console().print(table)


def _weights(name: str, called: str | None) -> tuple[str, Path | None]:
    """What weights are called, and the run they are of, if they are of one."""
    from seattn.core.errors import UserError
    from seattn.models.listing import our_models

    arch = name.split(".")[0]
    if arch in our_models() or not Path(name).is_dir():
        if called is not None:
            raise UserError(f"--name is for the weights of a run; {name} has its name")
        return name, None
    if called is None:
        raise UserError(f"give --name: what the weights of {name} are to be called")
    return called, Path(name)
