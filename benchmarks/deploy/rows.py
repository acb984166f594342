"""Rows of deployment: the size, the accuracy and the speed of a net in one form."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.evidence.rows import RESULTS
from benchmarks.speed.rows import DEPLOY_PREFIX
from seattn.core.rows import Conditions

EAGER = "eager"
FORMS = {  # the forms by their names in rows, with their names in tables
    EAGER: "PyTorch",
    "compiled": "PyTorch, `torch.compile`",
    "folded": "PyTorch, `seattn.accelerate(fold=True)`",
    "onnxruntime": "ONNX Runtime",
    "onnxruntime_int8": "ONNX Runtime, 8 bits",
    "openvino": "OpenVINO",
    "openvino_int8": "OpenVINO, 8 bits",
}


@dataclass(frozen=True)
class DeployRow:
    """One form of a net, and one batch size.

    Args:
        name: `arch.tag` of the weights.
        form: eager, compiled (torch.compile) or folded (seattn.accelerate with fold=True), which run PyTorch in
            channels_last; onnxruntime or openvino, files of `seattn export`, and the same with "_int8". All compute in
            float32 except for the last two.
        version: the version of the form's runtime.
        bytes: the size of all files of the form; for PyTorch's forms, of the weights in float32.
        images, top1: the labelled images, and the share of them that the form classifies correctly, from 0 to 1, with
            the 95 % Wilson interval `top1_low` to `top1_high`.
        batch_size: the images of one call.
        n: rounds; every form ran once in each.
        median, p20, p80: seconds of a call, with the 20th and 80th percentile.
        ratio, ratio_p20, ratio_p80: the time of eager over this form's in the same round, median and percentiles.
    """

    name: str
    form: str
    version: str
    bytes: int
    images: int
    top1: float
    top1_low: float
    top1_high: float
    batch_size: int
    n: int
    median: float
    p20: float
    p80: float
    ratio: float
    ratio_p20: float
    ratio_p80: float
    conditions: Conditions


def newest(rows: Sequence[DeployRow]) -> list[DeployRow]:
    """The rows of the last run of each net."""
    runs = {row.name: row.conditions for row in rows}
    last = {(row.name, row.form, row.batch_size): row for row in rows if row.conditions == runs[row.name]}
    return list(last.values())


def deploy_files(folder: Path = RESULTS) -> list[Path]:
    """The files of these rows, one for each device."""
    return sorted(folder.glob(f"{DEPLOY_PREFIX}*.csv"))
