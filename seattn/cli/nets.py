"""The commands about nets: `demo`, `evaluate`, `predict`, `list`, `profile`."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from seattn.cli import (
    LARGEST_BATCH,
    BatchSize,
    Checkpoint,
    ClassMap,
    Device,
    Ensemble,
    Json,
    Labels,
    NoExif,
    Tta,
    UnknownBelow,
    Workers,
    check_ensemble,
)
from seattn.core.errors import UserError
from seattn.core.files import require_writable_file, write_text

if TYPE_CHECKING:
    from torch import nn

    from seattn.evaluation.prediction import Prediction

DEFAULT_MODEL = "se_resnet18_cifar"


def demo(
    out: Annotated[Path, typer.Option(help="Folder for report.html.")] = Path("demo"),
    model: Annotated[str, typer.Option(help="Name, directory or hf-hub:org/name of a CIFAR-10 model.")] = DEFAULT_MODEL,
    checkpoint: Checkpoint = None,
) -> None:
    """Classify the 1,000 CIFAR-10 images that ship with the package and write an HTML report.

    `--model se_resnet20_cifar` shows a smaller net, which is quicker.
    """
    from seattn.cli.demo import run_demo

    console = Console()
    run_demo(model, out, checkpoint=checkpoint, console=console)
    console.print(Text(f"report: {out / 'report.html'}"), soft_wrap=True)


def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Name (arch or arch.tag), model directory or hf-hub:org/name; several with --ensemble.",
        ),
    ],
    data_dir: Annotated[
        Path, typer.Option(help="Images as DIR/SPLIT/CLASS/IMAGE or DIR/CLASS/IMAGE, or torchvision's CIFAR files.")
    ],
    split: Annotated[str, typer.Option(help="The part of DIR to score.")] = "test",
    checkpoint: Checkpoint = None,
    batch_size: BatchSize = 256,
    workers: Workers = 2,
    device: Device = "cpu",
    no_exif: NoExif = False,
    class_map: ClassMap = None,
    labels: Labels = None,
    tta: Tta = "none",
    ensemble: Ensemble = None,
    as_json: Json = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the scores to this JSON file.", show_default="none")
    ] = None,
) -> None:
    """Score a model on a folder of images: accuracy with its interval, classes, confusions, calibration.

    With --ensemble: several models, each alone and all together, with the gain on the same images and its interval.
    """
    from seattn.cli.tables import print_evaluation, print_members
    from seattn.data.folders.splits import split_folder
    from seattn.data.images import cifar_folder
    from seattn.evaluation.probabilities.ensemble import evaluate_ensemble
    from seattn.evaluation.scoring import evaluate as evaluate_split
    from seattn.models.load import load_model
    from seattn.training.finetuning import images_of_nets

    check_ensemble(models, ensemble, checkpoint)
    if out is not None:
        require_writable_file(out)
    cifar = cifar_folder(data_dir)  # bad data are refused before the model is loaded
    if labels is None:
        data_dir = images_of_nets(models, checkpoint, data_dir, split)
    data = f"{data_dir / cifar}, {split}" if cifar else str(labels or split_folder(data_dir, split))
    nets = {model: load_model(model, checkpoint=checkpoint, device=device) for model in models}
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "workers": workers,
        "exif": not no_exif,
        "class_map": class_map,
        "labels": labels,
        "tta": tta,
        "progress": True,
    }
    members = None
    if ensemble is None:
        evaluation = evaluate_split(nets[models[0]], data_dir, split, **options)
        scores = {"model": models[0], "data": data, "tta": tta, **evaluation.to_dict()}
    else:
        done = evaluate_ensemble(nets, data_dir, split, ensemble, **options)
        evaluation, members = done.together, done.members
        scores = {"data": data, "tta": tta, **done.to_dict()}
    text = json.dumps(scores, indent=2)
    if out is not None:
        write_text(out, text + "\n")
    if as_json:
        print(text)
        return
    console = Console()
    if members is not None:
        print_members(console, members)
    print_evaluation(console, evaluation)


def predict(
    images: Annotated[
        list[Path], typer.Argument(help="Image files of any size, folders of images, or patterns such as 'a/*.jpg'.")
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Name, model directory or hf-hub:org/name; repeat it with --ensemble.", show_default=DEFAULT_MODEL
        ),
    ] = None,
    checkpoint: Checkpoint = None,
    topk: Annotated[int, typer.Option(min=1, help="The number of classes to show for each image.")] = 5,
    batch_size: Annotated[int, typer.Option(min=1, max=LARGEST_BATCH, help="Images in memory at a time.")] = 64,
    runtime: Annotated[
        str | None,
        typer.Option(
            metavar="onnx|openvino|executorch",
            help="Compute by this runtime; the first of IMAGES is then a file of seattn export.",
            show_default="PyTorch",
        ),
    ] = None,
    tta: Tta = "none",
    ensemble: Ensemble = None,
    unknown_below: UnknownBelow = 0.0,
    device: Device = "cpu",
    no_exif: NoExif = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list, one image on each line.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, one line for each class of an image.")] = False,
) -> None:
    """Classify images, and print the most probable classes of each; results appear batch by batch.

    An image that cannot be read is one line on stderr. The other images are classified; the exit code is then 1, or 2
    if no image can be read.
    """
    from seattn.deploy.runtime import load_exported
    from seattn.evaluation.prediction import Unreadable, find_images, predict_each
    from seattn.models.load import load_model

    if as_json and as_csv:
        raise UserError("give one of --json and --csv")
    models = model or [DEFAULT_MODEL]
    check_ensemble(models, ensemble, checkpoint)
    nets: dict[str, nn.Module]
    if runtime is None:
        paths = find_images(images)
        nets = {name: load_model(name, checkpoint=checkpoint, device=device) for name in models}
    else:
        if model or checkpoint is not None or device != "cpu":
            raise UserError(
                "--runtime takes its model from a file, on the CPU: omit --model, --checkpoint and --device"
            )
        file, paths = images[0], find_images(images[1:])
        if not paths:
            raise UserError(f"give an exported file and images: seattn predict --runtime {runtime} FILE IMAGE...")
        nets = {str(file): load_exported(file, runtime)}
    failed = 0

    def readable() -> Iterator["Prediction"]:
        nonlocal failed
        progress = not sys.stdout.isatty()  # in a terminal, the results themselves show the progress
        for result in predict_each(
            nets,
            paths,
            topk,
            batch_size=batch_size,
            exif=not no_exif,
            tta=tta,
            ensemble=ensemble or "average",
            unknown_below=unknown_below,
            progress=progress,
        ):
            if isinstance(result, Unreadable):
                failed += 1
                print(f"seattn: {result.reason}", file=sys.stderr)
            else:
                yield result

    show = print_json if as_json else print_csv if as_csv else print_text
    show(readable())
    if failed:
        raise typer.Exit(1 if failed < len(paths) else 2)


def print_text(predictions: Iterable["Prediction"]) -> None:
    """Print predictions as lines for people."""
    for prediction in predictions:
        print(prediction.image)
        if prediction.is_unknown:
            print(f"  {prediction.answer}: no class reaches a probability of {prediction.unknown_below:.1%}")
        for label, probability in zip(prediction.labels, prediction.probabilities, strict=True):
            print(f"  {probability:6.1%}  {label}", flush=True)


def print_json(predictions: Iterable["Prediction"]) -> None:
    """Print predictions as a JSON array with one line for each image."""
    before = "[\n"
    for prediction in predictions:
        print(f"{before}{json.dumps(prediction.to_dict())}", end="", flush=True)
        before = ",\n"
    print("[]" if before == "[\n" else "\n]")


def print_csv(predictions: Iterable["Prediction"]) -> None:
    """Print predictions as CSV with one line for each class of an image."""
    from seattn.evaluation.prediction import CSV_COLUMNS

    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(CSV_COLUMNS)
    for prediction in predictions:
        rows.writerows(prediction.to_rows())


def list_models(
    pattern: Annotated[
        str | None,
        typer.Argument(metavar="[FILTER]", help="A part of the name, or a pattern such as 'se_*'.", show_default="all"),
    ] = None,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Only nets with trained weights.")] = False,
    family: Annotated[
        str | None, typer.Option(help="Only nets of one family, for example resnet_cifar.", show_default="all")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the nets of this package by family: parameters, MACs, input size, data sets and weights."""
    from seattn.cli.tables import nets_tables
    from seattn.models.listing import list_nets

    nets = list_nets(pattern, family=family, pretrained=pretrained)
    if as_json:
        print(json.dumps([net.to_dict() for net in nets], indent=2))
    else:
        Console().print(*nets_tables(nets))


def profile(
    model: Annotated[str, typer.Argument(help="Any model of timm's registry: arch or arch.tag.")],
    more: Annotated[
        list[str] | None, typer.Argument(hidden=True, metavar="")
    ] = None,  # further pairs after --model-kwargs
    against: Annotated[
        str | None,
        typer.Option(help="Another model, or none.", show_default="the plain twin of a se_, eca_ or cbam_ net"),
    ] = None,
    input_size: Annotated[
        tuple[int, int, int] | None,
        typer.Option(metavar="C H W", help="Channels, height and width.", show_default="the model's own"),
    ] = None,
    as_json: Json = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw parameters and MACs to this .png or .svg.", show_default="none"),
    ] = None,
    model_kwargs: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE ...", help="Options of the model: rd_ratio=0.125 …", show_default="none"),
    ] = None,
) -> None:
    """Show the costs of a net by part: parameters, MACs, memory, passes over maps; and against its plain twin."""
    from seattn.cli.tables import print_comparison
    from seattn.evaluation.profile.compare import compare, parse_options
    from seattn.evaluation.profile.plot import check_plot, write_plot

    options = parse_options([*(model_kwargs or []), *(more or [])])
    if plot is not None:
        check_plot(plot)
    comparison = compare(model, against=against, input_size=input_size, options=options)
    if plot is not None:
        write_plot(plot, comparison)
    if as_json:
        print(json.dumps(comparison.to_dict(), indent=2))
    else:
        print_comparison(Console(), comparison)
