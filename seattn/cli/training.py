"""The commands that train: `train`, `finetune`, `timm`, and the option --set of recipes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from seattn.core.errors import UserError

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A recipe key, in YAML: lr=0.05, seattn.cutout=8. Repeatable."),
]


def parse_settings(settings: Sequence[str]) -> dict[str, object]:
    """KEY=VALUE as a mapping; values are YAML.

    Raises:
        UserError: for what is not of that form.
    """
    import yaml

    parsed: dict[str, object] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not (key and equals):
            raise UserError(f"--set takes KEY=VALUE, for example lr=0.05 or seattn.cutout=8; got {setting!r}")
        try:
            parsed[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"--set {setting}: the value is not valid YAML: {' '.join(str(error).split())}") from error
    return parsed


def finetune(
    model: Annotated[str, typer.Argument(help="Any model of timm or of this package: arch or arch.tag.")],
    data_dir: Annotated[
        Path, typer.Option(help="Images as DIR/CLASS/IMAGE; or already split, as DIR/train/CLASS/IMAGE and DIR/test/…")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder of the run: weights, report, recipe.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of as many as suit the number of images.")] = None,
    device: Annotated[str | None, typer.Option(help="Where to compute: cpu or cuda.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Instead of what suits the number of images.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the split and of the training.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="Without pretrained weights.")] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable images out, with a warning.")] = False,
    settings: Settings = None,
) -> None:
    """Make a classifier of your own images: a folder a class in, weights and an HTML report out."""
    from seattn.reports.net_report import write_run_report
    from seattn.training.finetuning import finetune as run_finetune

    overrides = parse_settings(settings or [])
    given = {"epochs": epochs, "batch_size": batch_size}
    overrides.update({key: value for key, value in given.items() if value is not None})
    done = run_finetune(
        *(model, data_dir, out),
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
    args: Annotated[list[str] | None, typer.Argument(help="Its own arguments, passed on as they are.")] = None,
) -> None:
    """Run one of timm's scripts (validate.py, benchmark.py …) with the models of this package."""
    from seattn.cli.timm_scripts import run_script

    run_script(script, args or [])


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
    from seattn.training.driver import train as run_recipe

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
