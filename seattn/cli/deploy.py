"""The commands that bring nets to their users: `export` (files for other runtimes), `prune`, `app` (a web page)."""

import json
from pathlib import Path
from typing import Annotated

import typer

from seattn.cli import (
    Checkpoint,
    ClassMap,
    Device,
    Examples,
    FinetuningBatchSize,
    FinetuningEpochs,
    FinetuningSeed,
    Json,
    SkipBad,
    TrainingDevice,
)
from seattn.cli.nets import DEFAULT_MODEL
from seattn.cli.training import Settings, parse_settings, reuse_memory
from seattn.core.errors import UserError, counted


def export(
    model: Annotated[str, typer.Argument(help="Name (arch or arch.tag), model directory or hf-hub:org/name.")],
    to: Annotated[
        str, typer.Option("--to", metavar="FORMAT", help="onnx, openvino, torch, torchscript, executorch or coreml.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The file: .onnx, .xml (OpenVINO), .pt2 (torch), .pt (torchscript), .pte (executorch); or the folder "
            ".mlpackage (coreml).",
            show_default="the model's name",
        ),
    ] = None,
    checkpoint: Checkpoint = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Labelled images, as for evaluate: the file is compared with PyTorch on up to 1,000 of them.",
            show_default="none: random inputs, for CIFAR-10's nets also 1,000 images of the package",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="The part of DATA_DIR to compare on.")] = "test",
    class_map: ClassMap = None,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="8-bit weights and activations (ONNX, OpenVINO, torch); needs --data-dir, to compare the accuracy.",
        ),
    ] = False,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="With --int8: images that show the ranges of activations.",
            show_default="DATA_DIR's train split",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a net as a file for other runtimes, with its preprocessing and class names, and check its outputs.

    A file whose outputs differ from PyTorch's, or whose 8 bits cost over 5 points of accuracy, is not kept.
    ExecuTorch (with XNNPACK) and Core ML are for phones and other small devices; these files take 1 to 64 images at a
    time, others any number. A Core ML file is checked on macOS only; on other systems it is written without a check.
    ONNX, OpenVINO and 8 bits need: pip install "seattn\\[deploy]".
    ExecuTorch and Core ML need: pip install "seattn\\[mobile]".
    """
    from seattn.deploy.exporting import export_model
    from seattn.deploy.runtime import RUNTIMES

    done = export_model(
        model,
        to,
        out,
        checkpoint=checkpoint,
        data_dir=data_dir,
        split=split,
        class_map=class_map,
        int8=int8,
        calibrate=calibrate,
        progress=True,
    )
    if as_json:
        print(json.dumps(done.to_dict(), indent=2))
        return
    before = "" if done.float_bytes is None else f", {done.float_bytes / 1e6:.2f} MB before quantisation"
    print(f"{' and '.join(done.files)}: {done.bytes / 1e6:.2f} MB{before}")
    inputs = [counted(done.images, "image")] if done.images else []
    if not int8:
        inputs = ["random inputs", *inputs]
    if done.difference is None:
        print(f"not checked: a file of the format {to} can be compared with PyTorch on macOS only")
    else:
        on = " and ".join(inputs)
        print(f"largest difference from PyTorch, on {on}: {done.difference:.1g} of the largest logit")
    if done.top1_before is not None:
        images = counted(done.images, "image")
        print(f"top-1 on {images}: {done.top1_before:.2%} in PyTorch, {done.top1_after:.2%} in the file")
    if done.milliseconds_before is not None:
        before, after = f"{done.milliseconds_before:.2f}", f"{done.milliseconds_after:.2f}"
        print(f"one image: {before} ms in PyTorch (eager), {after} ms in the file")
    if to == "torch" and int8:
        print(
            "load it after `from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer`; on x86 CPUs, "
            "torch.compile computes it in 8 bits if torch._inductor.config.freezing is True, in torch.no_grad()"
        )
    if to in RUNTIMES:
        file = next(file for file in done.files if not file.endswith((".bin", ".json")))
        print(f"classify images: seattn predict --runtime {to} {file} photo.jpg")


def serve_app(
    model: Annotated[
        str,
        typer.Argument(help="Name, model directory or hf-hub:org/name: the first choice, before the packaged weights."),
    ] = DEFAULT_MODEL,
    examples: Examples = None,
    host: Annotated[
        str, typer.Option(help="Where to listen. With 0.0.0.0, every machine that reaches this one can use the app.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The port.", show_default="the first free one from 7860")
    ] = None,
    device: Device = "cpu",
) -> None:
    """Serve a web page that classifies images and shows why: classes, Grad-CAM, gates; many images become a CSV.

    Needs: pip install "seattn\\[app,explain]" (without explain there is no Grad-CAM). Nothing leaves this machine.
    """
    from importlib.util import find_spec

    if find_spec("gradio") is None:
        raise UserError('the app needs gradio, which is not installed: pip install "seattn[app]"')
    from seattn.data.samples import example_files
    from seattn.deploy.app import run
    from seattn.deploy.app.answers import choices

    run(
        choices(model),
        examples=None if examples is None else example_files(examples),
        device=device,
        host=host,
        port=port,
    )


def prune(
    model: Annotated[
        str, typer.Argument(help="A trained net of this package: name (arch or arch.tag), run folder, hf-hub:org/name.")
    ],
    ratio: Annotated[
        float, typer.Option(help="Share of channels to remove in each layer: 0.3 roughly halves parameters and MACs.")
    ],
    data_dir: Annotated[
        Path,
        typer.Option(help="Images of the net's classes: DIR/CLASS/IMAGE; or DIR/train/CLASS/IMAGE and DIR/test/…."),
    ],
    checkpoint: Checkpoint = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the run: weights, recipe, comparison.",
            show_default="runs/MODEL-pruned-RATIO-DIR-sSEED",
            metavar="RUN",
        ),
    ] = None,
    epochs: FinetuningEpochs = None,
    batch_size: FinetuningBatchSize = None,
    device: TrainingDevice = None,
    seed: FinetuningSeed = 0,
    skip_bad: SkipBad = False,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Remove channels of a trained net, fine-tune the smaller net, and compare both on the test images.

    The folder RUN is a model like that of finetune: evaluate, predict, export and report take it, and timm loads it as
    "local-dir:RUN". An interrupted training continues with: seattn finetune MODEL --data-dir DIR --out RUN --resume.
    Needs: pip install "seattn\\[deploy]".
    """
    from seattn.deploy.pruning import prune as run_prune

    overrides = parse_settings(settings or [], epochs=epochs, batch_size=batch_size)
    reuse_memory(device)
    done = run_prune(
        model,
        data_dir,
        out,
        ratio=ratio,
        checkpoint=checkpoint,
        device=device,
        seed=seed,
        skip_bad=skip_bad,
        overrides=overrides,
        progress=True,
    )
    if as_json:
        print(json.dumps(done.to_dict(), indent=2))
        return
    before, after = done.before, done.after
    top1 = f"top-1 on {counted(done.images, 'image')}"
    one = f"one image on {done.device} (median of 30 calls)"
    for what, old, new in (
        ("parameters", f"{before.parameters:,}", f"{after.parameters:,}"),
        ("MACs of one image", f"{before.macs:,}", f"{after.macs:,}"),
        (top1, f"{before.top1:.2%}", f"{after.top1:.2%}"),
        (one, f"{before.milliseconds:.2f} ms", f"{after.milliseconds:.2f} ms"),
    ):
        print(f"{what}: {old} before, {new} now")
    print(f'in Python: import seattn, timm; model = timm.create_model("local-dir:{done.run}", pretrained=True).eval()')
