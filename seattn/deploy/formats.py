"""The formats of `seattn export`: how each is written, read again, and which packages it needs.

Shapes: B images, C channels, H x W pixels, K classes.
"""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from seattn.core.errors import UserError, did_you_mean
from seattn.deploy.metadata import INPUT, KEY, Metadata, metadata_file
from seattn.deploy.mobile import LARGEST_BATCH, is_our_coreml, save_coreml, to_executorch
from seattn.deploy.program import DYNAMIC_BATCH, trace
from seattn.deploy.quantization import quantize_onnx, quantize_openvino, quantize_torch
from seattn.deploy.runtime import Run, run_coreml, run_executorch, run_onnx, run_openvino, run_torch, run_torchscript
from seattn.deploy.signals import signal_stack_kept

_BOUNDED_BATCH = ({0: Dim("batch", max=LARGEST_BATCH)},)


@dataclass(frozen=True)
class Format:
    """One format of files.

    Args:
        packages: the modules that writing and reading need, in addition to torch.
        write: writes a net, traced on inputs (B, C, H, W) with B >= 2, and its metadata to a path; a second file, if
            there is one, is in the same folder.
        load: reads a file as a function, and the text of its metadata, or None where the file does not hold it.
        quantize: gives a file 8-bit weights and activations, with inputs (B, C, H, W) that show the ranges of
            activations; None where 8 bits are not offered.
        int8_packages: the modules that `quantize` needs in addition to `packages`.
        extra: the extra of this package that installs all of them.
        is_ours: for a format that is a folder, whether a folder was written by `write` and may be replaced.
        platform: the value of `sys.platform` where files can be computed; None is any.
        second: the path of the second file, if there is one.
    """

    suffix: str
    packages: tuple[str, ...]
    write: Callable[[nn.Module, Tensor, Path, Metadata], None]
    load: Callable[[Path], tuple[Run, str | None]]
    quantize: Callable[[Path, Iterable[Tensor]], None] | None = None
    int8_packages: tuple[str, ...] = ()
    extra: str = "deploy"
    is_ours: Callable[[Path], bool] | None = None
    platform: str | None = None
    second: Callable[[Path], Path] | None = None

    @property
    def runs_here(self) -> bool:
        """Whether this machine can compute files of the format."""
        return self.platform in (None, sys.platform)


def find_format(name: str, *, int8: bool = False) -> Format:
    """The format called `name`.

    Raises:
        UserError: if there is no such format, a package that it needs is not installed, or it does not offer `int8`.
    """
    if name not in FORMATS:
        raise UserError(f"unknown format {name!r}; {did_you_mean(name, FORMATS)}")
    target = FORMATS[name]
    if int8 and target.quantize is None:
        offered = [key for key, other in FORMATS.items() if other.quantize is not None]
        raise UserError(f"--int8 is for --to {' or '.join(offered)}, got {name}")
    packages = (*target.packages, *(target.int8_packages if int8 else ()))
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        what = f"{name} in 8 bits" if int8 else name
        raise UserError(
            f'the format {what} needs {" and ".join(missing)}, not installed here: pip install "seattn[{target.extra}]"'
        )
    return target


def _write_torch(net: nn.Module, x: Tensor, path: Path, metadata: Metadata) -> None:
    torch.export.save(trace(net, x), path)
    _write_beside(path, metadata)


def _write_torchscript(net: nn.Module, x: Tensor, path: Path, metadata: Metadata) -> None:
    torch.jit.save(torch.jit.trace(net, x, check_trace=False), str(path))
    _write_beside(path, metadata)


def _write_beside(path: Path, metadata: Metadata) -> None:
    metadata_file(path).write_text(metadata.to_json() + "\n", encoding="utf-8")


def _write_onnx(net: nn.Module, x: Tensor, path: Path, metadata: Metadata) -> None:
    import onnx

    program = torch.onnx.export(
        trace(net, x),
        (x,),
        dynamo=True,
        input_names=[INPUT],
        output_names=["logits"],
        dynamic_shapes=DYNAMIC_BATCH,
        verbose=False,
    )
    assert program is not None  # None is for the exporter before dynamo
    model = program.model_proto
    graph = model.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")  # names of source files, and the steps of the exporter
    onnx.helper.set_model_props(model, {KEY: metadata.to_json()})
    onnx.save(model, path)


@signal_stack_kept()
def _write_openvino(net: nn.Module, x: Tensor, path: Path, metadata: Metadata) -> None:
    import openvino

    model = openvino.convert_model(trace(net, x))
    model.inputs[0].set_names({INPUT})
    model.outputs[0].set_names({"logits"})
    model.set_rt_info(metadata.to_json(), [KEY])
    openvino.save_model(model, path, compress_to_fp16=False)


def _weights_file(path: Path) -> Path:
    return path.with_suffix(".bin")


def _write_executorch(net: nn.Module, x: Tensor, path: Path, metadata: Metadata) -> None:
    images = x.new_zeros(LARGEST_BATCH, *x.shape[1:])
    path.write_bytes(to_executorch(trace(net, images, _BOUNDED_BATCH)))
    _write_beside(path, replace(metadata, largest_batch=LARGEST_BATCH))


def _write_coreml(net: nn.Module, x: Tensor, path: Path, metadata: Metadata) -> None:
    _, channels, height, width = x.shape
    text = replace(metadata, largest_batch=LARGEST_BATCH).to_json()
    save_coreml(trace(net, x, _BOUNDED_BATCH), (channels, height, width), path, text)


FORMATS = {
    "onnx": Format(".onnx", ("onnx", "onnxscript", "onnxruntime"), _write_onnx, run_onnx, quantize_onnx),
    "openvino": Format(
        ".xml", ("openvino",), _write_openvino, run_openvino, quantize_openvino, ("nncf",), second=_weights_file
    ),
    "torch": Format(".pt2", (), _write_torch, run_torch, quantize_torch, ("torchao",), second=metadata_file),
    "torchscript": Format(".pt", (), _write_torchscript, run_torchscript, second=metadata_file),
    "executorch": Format(
        ".pte", ("executorch",), _write_executorch, run_executorch, extra="mobile", second=metadata_file
    ),
    "coreml": Format(
        ".mlpackage",
        ("coremltools",),
        _write_coreml,
        run_coreml,
        extra="mobile",
        is_ours=is_our_coreml,
        platform="darwin",
    ),
}
