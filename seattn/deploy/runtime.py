"""Exported files as functions, and ONNX, OpenVINO and ExecuTorch files as nets that `seattn.evaluation` can use.

Shapes: B images, C channels, H x W pixels, K classes.
"""

from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from seattn.core.errors import UserError, first_line
from seattn.core.files import not_found
from seattn.core.records import read_text
from seattn.deploy.metadata import INPUT, KEY, Metadata, metadata_file, parse
from seattn.deploy.mobile import LARGEST_BATCH
from seattn.deploy.signals import signal_stack_kept
from seattn.models.load import set_temperature

Run = Callable[[Tensor], Tensor]  # float32 (B, C, H, W) to (B, K), on the CPU


class ExportedNet(nn.Module):
    """An exported net as a module, with those attributes of timm's models that `predict` and `evaluate` read."""

    def __init__(self, run: Run, metadata: Metadata, path: Path) -> None:
        super().__init__()
        self.run, self.path = run, path
        self.num_classes = len(metadata.class_names)
        self.in_chans = metadata.preprocessing["input_size"][0]
        self.pretrained_cfg = {**metadata.preprocessing, "label_names": metadata.class_names}
        set_temperature(self, metadata.temperature)
        self.empty = nn.Parameter(torch.empty(0))  # callers take a net's device from its parameters

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of x (B, C, H, W).

        Raises:
            UserError: if the file has another number of outputs than its metadata have names.
        """
        y = self.run(x)
        if y.shape != (len(x), self.num_classes):
            raise UserError(
                f"{self.path} has outputs of shape {tuple(y.shape)} for {len(x)} images, and {self.num_classes} names "
                "of classes; export the net again"
            )
        return y


def load_exported(path: str | Path, runtime: str) -> ExportedNet:
    """The net in a file of `seattn export`, computed by the runtime "onnx", "openvino" or "executorch".

    Raises:
        UserError: if the runtime is unknown or not installed, or the file cannot be read or is not of `seattn export`.
    """
    if runtime not in RUNTIMES:
        raise UserError(f"unknown runtime {runtime!r}; give one of {', '.join(RUNTIMES)}")
    load, extra, beside = RUNTIMES[runtime]
    path = Path(path)
    if not path.is_file():
        raise UserError(not_found("exported file", path))
    try:
        run, text = load(path)
    except ModuleNotFoundError as error:
        package = (error.name or runtime).partition(".")[0]
        raise UserError(
            f'the runtime {runtime} needs {package}, which is not installed: pip install "seattn[{extra}]"'
        ) from error
    except UserError:
        raise
    except Exception as error:  # runtimes raise errors of many types for a file that they cannot read
        raise UserError(f"{runtime} cannot read {path}: {first_line(error)}") from error
    source = metadata_file(path) if beside else path
    if text is None:
        if beside:
            reason = f"{source}, which has the preprocessing and class names, is missing; move both files together, or"
        else:
            reason = f"{path} has no preprocessing and class names: it was not written by seattn export --to {runtime};"
        raise UserError(f"{reason} export the net with: seattn export MODEL --to {runtime}")
    return ExportedNet(run, parse(text, source), path)


def run_onnx(path: Path) -> tuple[Run, str | None]:
    """The function of an ONNX file, with as many threads as torch has, and the text of its metadata."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: x.contiguous().numpy()})[0])

    return run, session.get_modelmeta().custom_metadata_map.get(KEY)


@signal_stack_kept()
def run_openvino(path: Path) -> tuple[Run, str | None]:
    """The function of an OpenVINO file in float32, with as many threads as torch has, and the text of its metadata."""
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    threads = torch.get_num_threads()
    compiled = core.compile_model(
        model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    )

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(compiled(x.contiguous().numpy())[0])

    return run, str(model.get_rt_info([KEY]).value) if model.has_rt_info([KEY]) else None


def run_executorch(path: Path) -> tuple[Run, str | None]:
    """The function of an ExecuTorch file, and the text of the metadata beside it; None if there is none.

    The function computes as many images at a time as the file takes.
    """
    with redirect_stderr(StringIO()):  # hides its log; its errors are raised as exceptions
        from executorch.runtime import Runtime

        program = Runtime.get().load_program(path)
        method = program.load_method("forward")
    assert method is not None
    largest = method.metadata.input_tensor_meta(0).sizes()[0]

    def run(x: Tensor) -> Tensor:
        return torch.cat([method.execute([part.contiguous()])[0] for part in x.split(largest)])

    beside = metadata_file(path)
    return run, read_text(beside) if beside.exists() else None


def run_coreml(path: Path) -> tuple[Run, str | None]:
    """The function of a Core ML package, on the CPU, and the text of its metadata; on macOS only."""
    import coremltools

    model = coremltools.models.MLModel(str(path), compute_units=coremltools.ComputeUnit.CPU_ONLY)

    def run(x: Tensor) -> Tensor:
        parts = [part.contiguous().numpy() for part in x.split(LARGEST_BATCH)]
        return torch.cat([torch.from_numpy(model.predict({INPUT: part})["logits"]) for part in parts])

    return run, model.user_defined_metadata.get(KEY)


def run_torch(path: Path) -> tuple[Run, None]:
    """The function of a file of torch.export. Loading may unpickle objects: use only files that you wrote yourself."""
    return torch.export.load(path).module(), None


def run_torchscript(path: Path) -> tuple[Run, None]:
    """The function of a TorchScript file. Loading may unpickle objects: use only files that you wrote yourself."""
    return torch.jit.load(str(path)), None


class _Runtime(NamedTuple):
    load: Callable[[Path], tuple[Run, str | None]]
    extra: str  # of this package, which installs it
    beside: bool  # whether the metadata are in a second file, not in the file itself


RUNTIMES = {
    "onnx": _Runtime(run_onnx, "deploy", False),
    "openvino": _Runtime(run_openvino, "deploy", False),
    "executorch": _Runtime(run_executorch, "mobile", True),
}
