"""`seattn hub`: folders for the Hugging Face Hub and what holds them to the truth."""

from pathlib import Path
from typing import Annotated

import typer

hub = typer.Typer(
    help="Weights for the Hugging Face Hub: stage a repository's folder, verify it.", no_args_is_help=True
)


@hub.command()
def stage(
    name: Annotated[str, typer.Argument(help="Weights of this package, or the folder of a finished run.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New, empty, or an earlier stage of the same name.")],
    called: Annotated[
        str | None, typer.Option("--name", help="Of a run's weights: what they are to be called.")
    ] = None,
) -> None:
    """Build the folder of a repository: weights, config, card, recipe, rows, golden tensors and checksums."""
    from seattn.hub_stage import stage as stage_folder

    weights, run = _weights(name, called)
    for file in stage_folder(weights, folder, run=run):
        print(folder / file)


@hub.command()
def verify(
    name: Annotated[str, typer.Argument(metavar="DIR|NAME", help="A staged folder, or weights of this package.")],
    data_dir: Annotated[
        Path | None, typer.Option(help="Score the weights on DIR/test/CLASS/IMAGE too, against the card's claim.")
    ] = None,
) -> None:
    """Hold that a folder is whole and does what it says: checksums, weights, outputs, card; with data, accuracy."""
    import tempfile

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from seattn.hub_stage import packaged_name
    from seattn.hub_stage import stage as stage_folder
    from seattn.hub_verify import verify_folder

    if Path(name).is_dir() or "/" in name:
        found = verify_folder(Path(name), data_dir=data_dir)
    else:
        with tempfile.TemporaryDirectory() as folder:
            stage_folder(packaged_name(name), Path(folder) / "stage")
            found = verify_folder(Path(folder) / "stage", data_dir=data_dir)
    table = Table("check", "found", title=Text(name))
    table.columns[1].overflow = "fold"
    for check, detail in found.checks:
        table.add_row(Text(check), Text(detail))
    Console().print(table)


def import_weights(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint of timm's train.py, or a run's folder.")],
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="New folder for model.safetensors and config.json.")],
    model: Annotated[str | None, typer.Option(help="arch or arch.tag, where the checkpoint does not say.")] = None,
    no_ema: Annotated[bool, typer.Option("--no-ema", help="The weights as trained, not their average.")] = False,
    labels: Annotated[Path | None, typer.Option(help="Text file: the name of each output on a line.")] = None,
) -> None:
    """Make a checkpoint a folder that timm loads; of its pickle only weights and plain values are read."""
    from seattn.import_checkpoint import import_checkpoint

    import_checkpoint(checkpoint, folder, model=model, averaged=not no_ema, labels=labels)
    print(f'in Python: import seattn, timm; model = timm.create_model("local-dir:{folder}", pretrained=True).eval()')


def _weights(name: str, called: str | None) -> tuple[str, Path | None]:
    """What weights are called, and the run they are of, if they are of one."""
    from seattn.errors import UserError
    from seattn.load import our_models

    arch = name.split(".")[0]
    if arch in our_models() or not Path(name).is_dir():
        if called is not None:
            raise UserError(f"--name is for the weights of a run; {name} has its name")
        return name, None
    if called is None:
        raise UserError(f"give --name: what the weights of {name} are to be called")
    return called, Path(name)
