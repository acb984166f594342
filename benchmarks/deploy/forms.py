"""The forms of a net that are compared: PyTorch's, and the files of `seattn export` in their runtimes.

Shapes: B images, C channels, H x W pixels, K classes.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

import seattn
from benchmarks.deploy.rows import EAGER
from seattn.core.errors import UserError, first_line
from seattn.data.transforms import data_config
from seattn.deploy import export_model
from seattn.deploy.formats import FORMATS
from seattn.deploy.runtime import Run
from seattn.models.load import load_model


@dataclass(frozen=True)
class Form:
    """One form of a net.

    Args:
        run: float32 (B, C, H, W) to logits (B, K).
        bytes, version: as in `DeployRow`.
    """

    run: Run
    bytes: int
    version: str


def make_forms(
    name: str, data_dir: Path, folder: Path, batch_sizes: tuple[int, ...], log: Callable[[str], None]
) -> dict[str, Form]:
    """The forms of the net `name` that can be made here; `log` gets the seconds of each, or why it is left out.

    Args:
        data_dir: its train split calibrates the 8-bit files and checks their loss: the test split stays unread.
        folder: an empty folder for the files.
        batch_sizes: `torch.compile` compiles for these.
    """
    net = load_model(name)
    size = len(save(net.state_dict()))

    def compiled() -> Form:
        torch._dynamo.reset()
        module = _copy(net)
        module.compile(dynamic=False)
        form = _in_torch(module, size)
        for count in batch_sizes:
            form.run(torch.zeros(count, *data_config(net)["input_size"]))
        return form

    makers: dict[str, Callable[[], Form]] = {
        EAGER: lambda: _in_torch(_copy(net), size),
        "compiled": compiled,
        "folded": lambda: _in_torch(seattn.accelerate(_copy(net), fold=True, verbose=False), size),
        "onnxruntime": lambda: _exported(name, "onnx", folder),
        "onnxruntime_int8": lambda: _exported(name, "onnx", folder / "int8", data_dir),
        "openvino": lambda: _exported(name, "openvino", folder),
        "openvino_int8": lambda: _exported(name, "openvino", folder / "int8", data_dir),
    }
    forms = {}
    for form, make in makers.items():
        start = time.monotonic()
        try:
            forms[form] = make()
        except UserError as error:  # a runtime that is not installed, or 8 bits that cost too much accuracy
            log(f"{name}: {form} is left out: {error}")
        except Exception as error:  # of many kinds from torch.compile: a missing C compiler, an error of inductor
            if form != "compiled":
                raise
            log(f"{name}: {form} is left out: {first_line(error)}")
        else:
            log(f"{name}: {form} is ready after {time.monotonic() - start:.0f} s")
    return forms


def _copy(net: nn.Module) -> nn.Module:
    return copy.deepcopy(net).to(memory_format=torch.channels_last)


def _in_torch(module: nn.Module, size: int) -> Form:
    @torch.inference_mode()
    def run(x: Tensor) -> Tensor:
        return module(x.contiguous(memory_format=torch.channels_last))

    return Form(run, size, torch.__version__)


def _exported(name: str, to: str, folder: Path, calibrate: Path | None = None) -> Form:
    """The file of `seattn export`, with 8 bits if there are images to calibrate on."""
    file = folder / f"net{FORMATS[to].suffix}"
    split = "test" if calibrate is None else "train"
    done = export_model(name, to, file, data_dir=calibrate, split=split, int8=calibrate is not None)
    run, _ = FORMATS[to].load(file)
    return Form(run, done.bytes, version("onnxruntime" if to == "onnx" else to))
