"""The commands about runs and explanations: `report` and `calibrate` on runs, `explain` on images."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from seattn.cli import BatchSize, Checkpoint, Device, Json, UnknownBelow, Workers
from seattn.core.errors import counted


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of `train` or `finetune`.")],
    data_dir: Annotated[
        Path | None,
        typer.Option(help="The images that the runs were trained on.", show_default="none: curves and facts only"),
    ] = None,
    split: Annotated[
        str,
        typer.Option(help="held-out (the images that chose the weights), validation, or test (choose nothing by it)."),
    ] = "held-out",
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.html and the PNGs.", show_default="RUN/report")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Names of the recipes, in the order of their first runs.",
            show_default="the model, or the changed keys",
        ),
    ] = None,
    class_name: Annotated[
        str | None, typer.Option("--class", help="The class to show in detail.", show_default="the hardest")
    ] = None,
    device: Device = "cpu",
) -> None:
    """Draw runs as one HTML page and PNGs: curves, classes, confusions, worst images; and compare several runs."""
    from seattn.reports.run_report import report_runs

    names = None if labels is None else [name.strip() for name in labels.split(",")]
    done = report_runs(
        runs, data_dir=data_dir, split=split, out=out, labels=names, class_name=class_name, device=device, progress=True
    )
    print(f"{done.headline}\nreport: {done.page}, and {counted(len(done.figures), 'figure')} beside it")


def calibrate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, or one with config.json and weights.")],
    data_dir: Annotated[
        Path,
        typer.Option(help="The images that the run was trained on; for another folder, one with a validation split."),
    ],
    split: Annotated[
        str, typer.Option(help="held-out (the images that chose the weights), validation, or test.")
    ] = "held-out",
    batch_size: BatchSize = 256,
    workers: Workers = 2,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Find the temperature that makes a net's probabilities agree with its accuracy, and store it in config.json.

    The net keeps its answers. `predict`, `evaluate`, `explain` and `report` use the temperature.
    """
    import json

    from seattn.reports.calibration import calibrate_folder

    done, images, warning = calibrate_folder(
        run, data_dir, split, batch_size=batch_size, workers=workers, device=device, progress=True
    )
    if warning:
        print(f"seattn: {warning}", file=sys.stderr)
    scores = {
        name: {"ece": evaluation.ece, "loss": evaluation.loss}
        for name, evaluation in (("before", done.before), ("after", done.after))
    }
    if as_json:
        print(json.dumps({"temperature": done.temperature, "n": done.before.n, **scores}, indent=2))
        return
    print(f"temperature {done.temperature:.4f}, from {images.description}")
    print(f"calibration error {done.before.ece:.2%} before, {done.after.ece:.2%} after, on the same images")
    print(f"loss {done.before.loss:.4f} before, {done.after.loss:.4f} after\nstored in {run / 'config.json'}")


def explain(
    model: Annotated[str, typer.Argument(help="Any model of timm or of this package, a directory or hf-hub:org/name.")],
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE...", help="Image files of any size, folders of images, or patterns."),
    ],
    checkpoint: Checkpoint = None,
    out: Annotated[Path, typer.Option(help="Folder for explain.html and the PNGs.")] = Path("explain"),
    class_name: Annotated[
        str | None,
        typer.Option("--class", help="The class to explain, by name or index.", show_default="the predicted one"),
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="The module whose map is drawn.", show_default="the last stage")
    ] = None,
    method: Annotated[str, typer.Option(help="gradcam, gradcam++, hirescam or layercam.")] = "gradcam",
    unknown_below: UnknownBelow = 0.0,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Draw where a net looks in images (Grad-CAM) and the gates of its attention, as one HTML page and PNGs."""
    import json

    from seattn.core.files import require_writable
    from seattn.evaluation.explanation import explain as explain_images
    from seattn.evaluation.explanation import to_dict
    from seattn.evaluation.prediction import find_images
    from seattn.models.load import load_model
    from seattn.reports.explanation import write_explanations

    paths = find_images(images)
    require_writable(out, keep=False)
    net = load_model(model, checkpoint=checkpoint, device=device)
    explanations = explain_images(
        net, paths, class_name=class_name, layer=layer, method=method, unknown_below=unknown_below, progress=True
    )
    page = write_explanations(out, explanations, model_name=model)
    if as_json:
        print(json.dumps(to_dict(explanations), indent=2))
        return
    for explanation in explanations:
        prediction = explanation.prediction
        best = f"{prediction.labels[0]} {prediction.probabilities[0]:.1%}"
        if prediction.is_unknown:
            best = f"{prediction.answer} ({best})"
        print(f"{prediction.image}: {best}; {explanation.method} for {explanation.target} on {explanation.layer}")
    print(f"page: {page}")
