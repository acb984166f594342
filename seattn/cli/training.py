"""The commands that train: `train`, `finetune`, `pretrain`, `timm`; the option --set, and the command `recipe keys`."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seattn.cli import (
    LARGEST_BATCH,
    LARGEST_SEED,
    MOST_EPOCHS,
    Checkpoint,
    FinetuningBatchSize,
    FinetuningEpochs,
    FinetuningSeed,
    Json,
    Labels,
    ListRecipes,
    NoExif,
    SkipBad,
    TestLabels,
    TrainingDevice,
)
from seattn.core.errors import UserError

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A recipe key, in YAML: lr=0.05, seattn.cutout=8. Repeatable; `seattn recipe keys` shows all keys.",
        show_default="the recipe's values",
    ),
]

_EXIF = "seattn.exif"  # the recipe key of --no-exif


def parse_settings(settings: Sequence[str], **options: object) -> dict[str, object]:
    """KEY=VALUE as a mapping; values are YAML. `options` that are not None are added by the keys that they are for.

    Raises:
        UserError: for a setting of another form, or one whose key an option sets, too.
    """
    import yaml

    from seattn.core.records import parse_yaml

    parsed: dict[str, object] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not (key and equals):
            raise UserError(f"--set takes KEY=VALUE, for example lr=0.05 or seattn.cutout=8; got {setting!r}")
        try:
            parsed[key] = parse_yaml(value)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise UserError(f"--set {setting}: the value is not valid YAML: {' '.join(str(error).split())}") from error
    given = {key: value for key, value in options.items() if value is not None}
    if both := next((key for key in parsed if key in given), None):
        option = "--no-exif" if both == _EXIF else f"--{both.replace('_', '-')}"
        raise UserError(f"--set {both}=… and {option} are the same setting; give one of them")
    return {**parsed, **given}


def _exif_key(no_exif: bool) -> dict[str, object]:
    """The recipe key of --no-exif."""
    return {_EXIF: False} if no_exif else {}


def reuse_memory(device: str | None) -> None:
    """Let a training step on a CPU use the memory that the step before it has freed, for the rest of this process."""
    from seattn.core.device import default_device, keep_freed_memory

    if (device or default_device()) == "cpu":
        keep_freed_memory()


def finetune(
    model: Annotated[
        str,
        typer.Argument(
            help="Any model of timm or of this package (arch or arch.tag), a run's folder, hf-hub:org/name."
        ),
    ],
    data_dir: Annotated[
        Path, typer.Option(help="Images as DIR/CLASS/IMAGE; or already split, as DIR/train/CLASS/IMAGE and DIR/test/…")
    ],
    checkpoint: Checkpoint = None,
    labels: Labels = None,
    test_labels: TestLabels = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the run: weights, report, recipe.", show_default="runs/MODEL-DIR-sSEED", metavar="RUN"
        ),
    ] = None,
    epochs: FinetuningEpochs = None,
    device: TrainingDevice = None,
    batch_size: FinetuningBatchSize = None,
    seed: FinetuningSeed = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out; a finished run needs more --epochs.")
    ] = False,
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="Start without pretrained weights.")] = False,
    skip_bad: SkipBad = False,
    no_exif: NoExif = False,
    settings: Settings = None,
) -> None:
    """Train a classifier of your own images, one folder for each class; it gets weights and an HTML report."""
    from seattn.reports.net_report import write_run_report
    from seattn.training.finetuning import finetune as run_finetune

    overrides = parse_settings(settings or [], epochs=epochs, batch_size=batch_size, **_exif_key(no_exif))
    reuse_memory(device)
    done = run_finetune(
        model,
        data_dir,
        out,
        checkpoint=checkpoint,
        labels=labels,
        test_labels=test_labels,
        device=device,
        seed=seed,
        resume=resume,
        pretrained=not from_scratch,
        skip_bad=skip_bad,
        overrides=overrides,
    )
    page = write_run_report(done.run, done.images, done.row, done.device, skip_bad=skip_bad, progress=True)
    print(f"report: {page}\nin Python: {done.code}")


def timm_script(
    script: Annotated[str, typer.Argument(help="Path of a script, or its name in the folder $TIMM_SCRIPTS.")],
    args: Annotated[
        list[str] | None, typer.Argument(help="Arguments of the script, passed on unchanged.", show_default="none")
    ] = None,
) -> None:
    """Run one of timm's scripts (validate.py, benchmark.py …) with the models of this package."""
    from seattn.cli.timm_scripts import run_script

    run_script(script, args or [])


def train(
    data_dir: Annotated[
        Path,
        typer.Option(help="Images as DIR/train/CLASS/IMAGE and DIR/test/CLASS/IMAGE, or torchvision's CIFAR files."),
    ],
    recipe: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RECIPE]",
            help="YAML file, or the name of a recipe of this package: se_resnet20_cifar.cifar10.",
            show_default="none: --model and --lr give a recipe with timm's defaults",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run.", show_default="runs/MODEL-sSEED", metavar="RUN")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out; a finished run needs more --epochs.")
    ] = False,
    device: TrainingDevice = None,
    model: Annotated[
        str | None, typer.Option(help="Any model of timm or of this package.", show_default="the recipe's")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.", show_default="the recipe's")] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST_EPOCHS,
            help="Epochs to train; a warm-up with warmup_prefix is added to them.",
            show_default="the recipe's, or 300",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=2, max=LARGEST_BATCH, help="Images in a batch.", show_default="the recipe's, or 128"),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=LARGEST_SEED, help="Seed of the training.", show_default="the recipe's, or 42"),
    ] = None,
    settings: Settings = None,
    skip_bad: SkipBad = False,
    labels: Labels = None,
    test_labels: TestLabels = None,
    no_exif: NoExif = False,
    no_test: Annotated[
        bool,
        typer.Option("--no-test", help="Do not read the test split: the score is that of the held-out images."),
    ] = False,
    show_list: ListRecipes = False,
) -> None:
    """Train a model from a recipe; or without a recipe, by --model, --lr, --epochs, and --set for all other keys."""
    from seattn.core.recipe import find_config, load_recipe, parse_recipe, replace_keys
    from seattn.data.folders.classes import class_folders
    from seattn.data.folders.splits import find_split, has_split
    from seattn.data.images import cifar_folder
    from seattn.training.driver import train as run_recipe

    options = {"model": model, "lr": lr, "epochs": epochs, "batch_size": batch_size, "seed": seed}
    changes = parse_settings(settings or [], **options, **_exif_key(no_exif))
    if recipe is not None:
        plan = load_recipe(find_config(recipe), changes)
    elif "model" in changes and "lr" in changes:
        if "num_classes" not in changes and cifar_folder(data_dir) is None and has_split(data_dir, "train"):
            changes["num_classes"] = len(class_folders(find_split(data_dir, "train")))
        plan = parse_recipe(replace_keys({}, changes), source="the options")
    else:
        raise UserError("give a recipe (--list shows those of this package), or --model and --lr")
    reuse_memory(device)
    run_recipe(
        plan,
        data_dir,
        out,
        resume=resume,
        device=device,
        skip_bad=skip_bad,
        read_test=not no_test,
        labels=labels,
        test_labels=test_labels,
    )


def pretrain(
    recipe: Annotated[
        Path, typer.Argument(help="YAML file, or the name of a recipe of this package: resnet20_cifar.cifar10.simclr.")
    ],
    data_dir: Annotated[Path, typer.Option(help="Images as DIR/train/FOLDER/IMAGE, or torchvision's CIFAR files.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run.", show_default="runs/MODEL-simclr-sSEED", metavar="RUN")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    device: TrainingDevice = None,
    settings: Settings = None,
    skip_bad: SkipBad = False,
    show_list: ListRecipes = False,
) -> None:
    """Train a net without labels (SimCLR), as a start for finetune, which gives it a classifier."""
    from seattn.core.recipe import find_config, load_recipe
    from seattn.training.pretraining import pretrain as run_recipe

    plan = load_recipe(find_config(recipe), parse_settings(settings or []))
    reuse_memory(device)
    run = run_recipe(plan, data_dir, out, resume=resume, device=device, skip_bad=skip_bad)
    print(f"next: seattn finetune {run} --data-dir DIR")


def recipe_keys(
    pattern: Annotated[
        str | None,
        typer.Argument(metavar="[FILTER]", help="A part of the name, or a pattern such as 'lr*'.", show_default="all"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the keys of a recipe: type, default, bounds, meaning. All but seattn.… are those of timm's train.py."""
    from seattn.core.recipe.table import recipe_keys

    keys = recipe_keys(pattern)
    if as_json:
        print(json.dumps([asdict(key) for key in keys], indent=2))
        return
    table = Table(box=SIMPLE_HEAD, padding=(0, 0))
    table.add_column("key", no_wrap=True)
    table.add_column("type, default, bounds; meaning", overflow="fold")
    for key in keys:
        name, kind, default, bounds, meaning = key.cells()
        values = [kind, default if key.required else f"default {default}", *([bounds] if bounds else [])]
        table.add_row(Text(name), Text.assemble(("; ".join(values), "bold"), f"\n{meaning}"))
    Console().print(table)
