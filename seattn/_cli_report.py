"""The commands that draw: `report` on runs, `explain` on images."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of `train` or `finetune`.")],
    data_dir: Annotated[
        Path | None, typer.Option(help="The images that the runs were trained on; without: curves and facts only.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="held-out (what the runs chose by), validation, or test (choose nothing by that).")
    ] = "held-out",
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.html and the PNGs; by default RUN/report.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="What to call the recipes, in the order of their first runs.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1 ...")] = "cpu",
) -> None:
    """Draw runs as one HTML page and PNGs: curves, classes, confusions, worst images; several runs: what changed."""
    from seattn.run_report import report_runs

    names = None if labels is None else [name.strip() for name in labels.split(",")]
    done = report_runs(runs, data_dir=data_dir, split=split, out=out, labels=names, device=device)
    print(f"{done.headline}\nreport: {done.page}, and {len(done.figures)} figures beside it")
