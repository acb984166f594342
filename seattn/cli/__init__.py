"""The command line: one file for each group of commands; here the options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

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
