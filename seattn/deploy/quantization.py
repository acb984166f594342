"""Eight-bit ONNX files: static quantisation after training, with ranges of activations measured on images.

Shapes: B images, C channels, H x W pixels.
"""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from seattn.deploy.metadata import INPUT


def quantize_onnx(source: Path, target: Path, batches: Iterable[Tensor]) -> None:
    """Write the ONNX file `source` with 8-bit weights and activations to `target`; its metadata stay.

    Weights have a scale for each output channel and use 7 of the 8 bits: processors without VNNI add two products of
    8 bits in 16 bits, which would overflow.

    Args:
        batches: inputs (B, C, H, W) that show the range of each activation.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            target,
            _Reader(batches),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )


class _Reader:
    """Batches as onnxruntime's `CalibrationDataReader`, of which it calls `get_next` only."""

    def __init__(self, batches: Iterable[Tensor]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        """The next inputs by name, or None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch.contiguous().numpy()}
