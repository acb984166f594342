"""Eight-bit files: static quantisation after training, with ranges of activations measured on images.

Weights have a scale for each output channel. Weights (in files for PyTorch, activations) use 7 of the 8 bits:
processors without VNNI add two products of 8 bits in 16 bits, which would overflow.

Shapes: B images, C channels, H x W pixels.
"""

import logging
from collections.abc import Iterable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from seattn.deploy.metadata import INPUT
from seattn.deploy.program import trace
from seattn.deploy.signals import signal_stack_kept


def quantize_onnx(path: Path, batches: Iterable[Tensor]) -> None:
    """Give the ONNX file 8-bit weights and activations; its metadata stay.

    Args:
        batches: inputs (B, C, H, W) that show the range of each activation.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(path, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            path,
            _Reader(batches),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )


@signal_stack_kept()
def quantize_openvino(path: Path, batches: Iterable[Tensor]) -> None:
    """Give the OpenVINO file, and the file of weights beside it, 8-bit weights and activations; its metadata stay.

    Args:
        batches: inputs (B, C, H, W) that show the range of each activation.
    """
    import nncf
    import openvino

    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": "NO"})  # else the weights are read from the file while it is written
    inputs = [batch.contiguous().numpy() for batch in batches]
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(StringIO()):  # progress bars
            model = nncf.quantize(
                core.read_model(path),
                nncf.Dataset(inputs),
                subset_size=len(inputs),
                advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE),
            )
    finally:
        logger.setLevel(level)
    openvino.save_model(model, path, compress_to_fp16=False)


def quantize_torch(path: Path, batches: Iterable[Tensor]) -> None:
    """Give the file of torch.export 8-bit weights and activations.

    The file holds each operator between steps that convert to 8 bits and back (PyTorch 2 Export Quantization,
    https://docs.pytorch.org/ao/stable/pt2e_quantization). On x86 CPUs `torch.compile` replaces them by operators of 8
    bits, if torchao's `x86_inductor_quantizer` is imported, `torch._inductor.config.freezing` is True and gradients are
    off; otherwise the file is slower than the net in float32.

    Args:
        batches: inputs (B, C, H, W) that show the range of each activation; at least one.
    """
    from torch._inductor import config as inductor
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    passes = inductor.pre_grad_custom_pass
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    inductor.pre_grad_custom_pass = passes  # the import sets its own, for every net of the process
    config = x86.get_default_x86_inductor_quantization_config(reduce_range=True)
    net = prepare_pt2e(torch.export.load(path).module(), x86.X86InductorQuantizer().set_global(config))
    for batch in batches:
        net(batch)
    net = convert_pt2e(net)
    used = {node.target for node in net.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in net.named_parameters() if name not in used]:
        module, _, parameter = name.rpartition(".")
        delattr(net.get_submodule(module), parameter)  # float32 weights that 8-bit weights have replaced
    torch.export.save(trace(net, batch.new_zeros(2, *batch.shape[1:])), path)


class _Reader:
    """Batches as onnxruntime's `CalibrationDataReader`, of which it calls `get_next` only."""

    def __init__(self, batches: Iterable[Tensor]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        """The next inputs by name, or None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch.contiguous().numpy()}
