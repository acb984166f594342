"""One measured accuracy and the conditions it holds under. Written by code, never typed; cards and tables read it."""

import platform
import subprocess
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field


@dataclass(frozen=True)
class Conditions:
    """Where, with what and when a number was measured. An absent package is ""."""

    hardware: str
    threads: int
    python: str
    torch: str
    timm: str
    triton: str
    seattn: str
    commit: str
    date: str

    @property
    def machine(self) -> str:
        """Hardware and threads, for people."""
        return f"{self.hardware}, {self.threads} thread{'' if self.threads == 1 else 's'}"


@dataclass(frozen=True)
class AccuracyRow:
    """One trained model on one split.

    Args:
        name: `arch.tag`.
        split: "test", which took no part in any choice, or "held-out", the part of train that choices are made on.
        n: images of the split; `top1_low`, `top1_high` are the 95 % Wilson interval; all in 0..1.
        held_out_top1: on the part of the train split that was held out, for comparison; None where none was.
        train_seconds: time in training steps, without evaluation, on `hardware`.
        dtype: of the training.
        recipe: the file of `zoo_configs/` that the run followed, without its suffix; "" where it was none of
            them, or one as it was before a change.
        weights_dtype: of the weights that were scored; they compute in float32.
    """

    name: str
    dataset: str
    split: str
    n: Annotated[int, Field(ge=1)]
    top1: Annotated[float, Field(ge=0, le=1)]
    top1_low: float
    top1_high: float
    top5: float
    loss: float
    ece: float
    seed: int
    epochs: Annotated[int, Field(ge=1)]
    train_images: int
    held_out_images: int
    held_out_top1: float | None
    params: int
    train_seconds: Annotated[float, Field(allow_inf_nan=False)]
    dtype: str
    memory_format: str
    conditions: Conditions
    recipe: str = ""
    weights_dtype: str = "float32"


def conditions(device: torch.device) -> Conditions:
    """The conditions here and now."""
    return Conditions(
        hardware=torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        threads=torch.get_num_threads(),
        python=platform.python_version(),
        torch=torch.__version__,
        timm=_version("timm"),
        triton=_version("triton"),
        seattn=_version("seattn"),
        commit=_commit(),
        date=datetime.now(timezone.utc).date().isoformat(),
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _cpu_name() -> str:
    """The CPU's name and the instructions that torch uses: of two called AMD EPYC one may lack AVX-512 and bfloat16."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


def _commit() -> str:
    """Short hash of the checkout this package runs from, "+" if files differ from it; "" for an installed package."""
    git = ["git", "-C", str(Path(__file__).resolve().parents[2])]
    try:
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        tracked = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "seattn", "kernels"], check=False)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.strip() + ("+" if tracked.returncode else "")
