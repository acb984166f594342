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
    class_name: Annotated[
        str | None, typer.Option("--class", help="The class to look at closely; by default the hardest.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1 ...")] = "cpu",
) -> None:
    """Draw runs as one HTML page and PNGs: curves, classes, confusions, worst images; several runs: what changed."""
    from seattn.reports.run_report import report_runs

    names = None if labels is None else [name.strip() for name in labels.split(",")]
    done = report_runs(
        runs, data_dir=data_dir, split=split, out=out, labels=names, class_name=class_name, device=device, progress=True
    )
    print(f"{done.headline}\nreport: {done.page}, and {len(done.figures)} figures beside it")


def explain(
    model: Annotated[str, typer.Argument(help="Any model of timm or of this package, a directory or hf-hub:org/name.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files of any size.")],
    checkpoint: Annotated[Path | None, typer.Option(help="Weights to use instead of the model's own.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for explain.html and the PNGs.")] = Path("explain"),
    class_name: Annotated[
        str | None, typer.Option("--class", help="A class by name or index; by default what the net predicts.")
    ] = None,
    layer: Annotated[str | None, typer.Option(help="Module whose map is drawn; by default the last stage.")] = None,
    method: Annotated[str, typer.Option(help="gradcam, gradcam++, hirescam or layercam.")] = "gradcam",
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1 ...")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a summary.")] = False,
) -> None:
    """Draw where a net looks in images (Grad-CAM) and what its attention lets through, as one HTML page and PNGs."""
    import json

    from seattn.core.files import require_writable
    from seattn.evaluation.explanation import explain as explain_images
    from seattn.evaluation.explanation import to_dict
    from seattn.models.load import load_model
    from seattn.reports.explanation import write_explanations

    require_writable(out)
    net = load_model(model, checkpoint=checkpoint, device=device)
    found = explain_images(net, images, class_name=class_name, layer=layer, method=method, progress=True)
    page = write_explanations(out, found, model_name=model)
    if as_json:
        print(json.dumps(to_dict(found), indent=2))
        return
    for one in found:
        first = f"{one.prediction.labels[0]} {one.prediction.probabilities[0]:.1%}"
        print(f"{one.prediction.image}: {first}; {one.method} for {one.target} on {one.layer}")
    print(f"page: {page}")
