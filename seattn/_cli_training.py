"""The commands around training that are not `train` itself: `finetune`, `timm`, and the option --set of recipes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from seattn.errors import UserError

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
    from seattn.finetune import finetune as run_finetune

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
    print(f"report: {done.report}\nin Python: {done.code}")


def timm_script(
    script: Annotated[str, typer.Argument(help="Path of a script, or its name in the folder $TIMM_SCRIPTS.")],
    args: Annotated[list[str] | None, typer.Argument(help="Its own arguments, passed on as they are.")] = None,
) -> None:
    """Run one of timm's scripts (validate.py, benchmark.py …) with the models of this package."""
    from seattn.timm_scripts import run_script

    run_script(script, args or [])
