"""The `seattn` command: its root, and the commands about nets; the others are in `_cli_*.py`, a line each below.

Whatever needs torch is imported inside the commands, so that `--help` and usage errors do not wait for it.
"""

import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seattn._cli_ablate import ablate
from seattn._cli_hub import hub, import_weights
from seattn._cli_report import explain, report
from seattn._cli_search import search
from seattn._cli_training import Settings, finetune, parse_settings, timm_script
from seattn._files import require_writable, write_text
from seattn.errors import UserError

DEMO_MODEL = "se_resnet20_cifar"

# typer has carried its own copy of click since 0.16: this is ClickException of whichever it uses.
ClickException: type[Exception] = next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")

Checkpoint = Annotated[
    Path | None, typer.Option(help="Weights to use instead of the model's own: .safetensors or .pth.tar.")
]
Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1 ...")]


def run(args: Sequence[str] | None = None) -> int:
    """Run the command line on `args`; the exit code."""
    try:
        with _log_to_stderr():
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


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for report.html.")] = Path("demo"),
    model: Annotated[str, typer.Option(help="Name, directory or hf-hub:org/name of a CIFAR-10 model.")] = DEMO_MODEL,
    checkpoint: Checkpoint = None,
) -> None:
    """Classify the 1,000 CIFAR-10 images that ship with the package and write an HTML report."""
    from seattn.demo import run_demo

    console = Console()
    run_demo(model, out, checkpoint=checkpoint, console=console)
    console.print(Text(f"report: {out / 'report.html'}"), soft_wrap=True)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Name (arch or arch.tag), model directory or hf-hub:org/name.")],
    data_dir: Annotated[
        Path, typer.Option(help="Images as DIR/SPLIT/CLASS/IMAGE or DIR/CLASS/IMAGE, or torchvision's CIFAR files.")
    ],
    split: Annotated[str, typer.Option(help="Which part of DIR.")] = "test",
    checkpoint: Checkpoint = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 256,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read images; 0 reads in this one.")] = 2,
    device: Device = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the scores to this JSON file too.")] = None,
) -> None:
    """Score a model on a folder of images: accuracy with its interval, classes, confusions, calibration."""
    from seattn._image_set import cifar_folder
    from seattn._report_tables import print_evaluation
    from seattn.evaluate import evaluate as evaluate_split
    from seattn.evaluate import split_folder
    from seattn.load import load_model

    if out is not None:
        if out.is_dir():
            raise UserError(f"--out {out} is a folder; give the name of a file")
        require_writable(out.parent)
    cifar = cifar_folder(data_dir)
    data = f"{data_dir / cifar}, {split}" if cifar else str(split_folder(data_dir, split))  # before the model's turn
    net = load_model(model, checkpoint=checkpoint, device=device)
    evaluation = evaluate_split(net, data_dir, split, batch_size=batch_size, workers=workers)
    text = json.dumps({"model": model, "data": data, **evaluation.to_dict()}, indent=2)
    if out is not None:
        write_text(out, text + "\n")
    if as_json:
        print(text)
    else:
        print_evaluation(Console(), evaluation)


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files of any size.")],
    model: Annotated[str, typer.Option(help="Name, model directory or hf-hub:org/name.")] = DEMO_MODEL,
    checkpoint: Checkpoint = None,
    topk: Annotated[int, typer.Option(min=1, help="How many classes to show for each image.")] = 5,
    device: Device = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Name what images show."""
    from seattn.load import load_model
    from seattn.predict import predict as predict_images

    predictions = predict_images(load_model(model, checkpoint=checkpoint, device=device), images, topk)
    if as_json:
        print(json.dumps([prediction.to_dict() for prediction in predictions], indent=2))
        return
    table = Table("image", "class", "probability")
    table.columns[0].overflow = table.columns[1].overflow = "fold"
    table.columns[2].justify = "right"
    for prediction in predictions:
        for row, (label, probability) in enumerate(zip(prediction.labels, prediction.probabilities, strict=True)):
            last = row == len(prediction.labels) - 1
            table.add_row(Text("" if row else prediction.image), Text(label), f"{probability:.1%}", end_section=last)
    Console().print(table)


@app.command("list")
def list_models(
    pattern: Annotated[
        str | None, typer.Argument(metavar="[FILTER]", help="Part of the name, or a pattern such as 'se_*'.")
    ] = None,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Only those with trained weights.")] = False,
    family: Annotated[str | None, typer.Option(help="Only those of one family, for example resnet_cifar.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the nets of this package by family: parameters, MACs, input size, data sets and weights."""
    from seattn.zoo import list_nets, nets_tables

    nets = list_nets(pattern, family=family, pretrained=pretrained)
    if as_json:
        print(json.dumps([net.to_dict() for net in nets], indent=2))
    else:
        Console().print(*nets_tables(nets))


@app.command()
def profile(
    model: Annotated[str, typer.Argument(help="Any model of timm's registry: arch or arch.tag.")],
    more: Annotated[
        list[str] | None, typer.Argument(hidden=True, metavar="")
    ] = None,  # further pairs after --model-kwargs
    against: Annotated[
        str | None, typer.Option(help="Another model, or none; by default the plain twin of a se_, eca_ or cbam_ net.")
    ] = None,
    input_size: Annotated[
        tuple[int, int, int] | None, typer.Option(metavar="C H W", help="Instead of the model's own.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw parameters and MACs into this .png or .svg.")] = None,
    model_kwargs: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE ...", help="Options of the model: rd_ratio=0.125 ...")
    ] = None,
) -> None:
    """Show what a net costs by part: parameters, MACs, memory, passes over maps; against its plain twin in percent."""
    from seattn._profile_compare import compare, parse_options
    from seattn._profile_plot import check_plot, write_plot
    from seattn._profile_tables import print_comparison

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


app.command()(finetune)
app.command()(ablate)
app.command()(search)
app.command()(report)
app.command()(explain)
app.add_typer(hub, name="hub")
app.command("import")(import_weights)
app.command("timm", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})(timm_script)


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="YAML file, for example zoo_configs/se_resnet20_cifar.cifar10.yaml.")],
    data_dir: Annotated[Path, typer.Option(help="Images as DIR/train/CLASS/IMAGE and DIR/test/CLASS/IMAGE.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the run.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the folder.")] = False,
    device: Annotated[str | None, typer.Option(help="Where to compute: cpu or cuda.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the recipe's.")] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Instead of the recipe's; a warm-up with warmup_prefix comes on top.")
    ] = None,
    settings: Settings = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable images out, with a warning.")] = False,
    no_test: Annotated[
        bool,
        typer.Option("--no-test", help="Leave the test split alone, for choices; the score is of the held-out part."),
    ] = False,
) -> None:
    """Train a model from a recipe."""
    from seattn.train import train as run_recipe

    overrides = parse_settings(settings or [])
    overrides.update({key: value for key, value in (("seed", seed), ("epochs", epochs)) if value is not None})
    run_recipe(
        *(recipe, data_dir, out),
        resume=resume,
        device=device,
        skip_bad=skip_bad,
        overrides=overrides,
        read_test=not no_test,
    )
