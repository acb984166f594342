"""A row of results: one measured accuracy with its conditions. Code writes rows; cards and tables show them."""

import platform
import subprocess
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

from seattn.core.errors import counted

_Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Conditions:
    """Where, with what and when a number was measured; the version of an absent package is empty."""

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
        """The hardware and the number of threads, as people read it."""
        return f"{self.hardware}, {counted(self.threads, 'thread')}"


@dataclass(frozen=True)
class AccuracyRow:
    """The accuracy of one trained model on one split.

    Args:
        name: `arch.tag`.
        split: "test", which took no part in any choice, or "held-out", the images that choices are made on.
        n: the number of images of the split.
        top1: a fraction from 0 to 1, as are `top5` and the 95 % Wilson interval `top1_low` to `top1_high`.
        ece: the expected calibration error.
        held_out_top1: the top-1 on the held-out images, for comparison; None where no image was held out.
        params: the number of parameters.
        train_seconds: time in training steps, without evaluation, on `hardware`.
        dtype: the dtype of the training.
        recipe: the file of `zoo_configs/` that the run followed, without its suffix; empty where the run followed none
            of them, or a file that was changed afterwards.
        weights_dtype: the dtype in which the weights are stored; the scores were computed in float32.
    """

    name: str
    dataset: str
    split: str
    n: Annotated[int, Field(ge=1)]
    top1: _Share
    top1_low: _Share
    top1_high: _Share
    top5: _Share
    loss: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    ece: _Share
    seed: int
    epochs: Annotated[int, Field(ge=1)]
    train_images: int
    held_out_images: int
    held_out_top1: _Share | None
    params: int
    train_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    dtype: str
    memory_format: str
    conditions: Conditions
    recipe: str = ""
    weights_dtype: str = "float32"


def conditions(device: torch.device) -> Conditions:
    """The conditions on this machine at this moment."""
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
    """The CPU's name and the instructions that torch uses: CPUs of one name may differ in AVX-512 and bfloat16."""
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
    """The short hash of the checkout that runs, with "+" if files differ from it; empty for an installed package."""
    git = ["git", "-C", str(Path(__file__).resolve().parents[2])]
    try:
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        tracked = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "seattn", "kernels"], check=False)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.strip() + ("+" if tracked.returncode else "")
