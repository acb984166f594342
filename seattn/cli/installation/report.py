"""The command `info`: the facts about an installation for a bug report. A part that fails is shown by its error."""

import json
import os
import platform
import re
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from seattn.cli import Json
from seattn.core.errors import first_line

Facts = dict[str, str]

_PACKAGES = ("torch", "torchvision", "timm", "triton", "huggingface_hub", "safetensors", "numpy")
_FLAGS = re.compile(r"\b(avx2|avx512f|avx512_bf16|avx512_vnni|avx_vnni|amx_bf16|amx_int8|asimd|i8mm|bf16|sve2?)\b")
_VARIABLES = re.compile("(SEATTN|TRITON|OMP|MKL|CUDA|PYTORCH|TORCH|HF|TIMM)_")
_SECRET = re.compile("TOKEN|KEY|SECRET|PASSWORD|ENDPOINT|PROXY")


def info(as_json: Json = False) -> None:
    """Show versions, devices, kernels, folders and extras of this installation, to paste into a bug report.

    A part that cannot be loaded, such as a torch that does not fit its CUDA, is shown with its error. Values of
    variables that may hold a token are not shown, and your home folder is shown as ~.
    """
    parts = {name: _facts_or_error(collect) for name, collect in _PARTS.items()}
    if as_json:
        print(json.dumps(parts, indent=2))
        return
    for name, facts in parts.items():
        print(f"{name}:")
        for key, value in facts.items():
            print(f"  {key}: {value}")


def _facts_or_error(collect: Callable[[], Facts]) -> Facts:
    try:
        facts = collect()
    except Exception as error:  # the installation that is asked about may be broken in any way
        facts = {"error": f"{type(error).__name__}: {first_line(error)}"}
    home = str(Path.home())
    return {key: value.replace(home, "~") if len(home) > 1 else value for key, value in facts.items()}


def _system() -> Facts:
    return {
        "system": platform.platform(),
        "python": f"{platform.python_version()}, {sys.executable}",
        "seattn": str(Path(__file__).resolve().parents[2]),
    }


def _packages() -> Facts:
    return {"seattn": _version("seattn"), **{name: _version(name) for name in _PACKAGES}}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _extras() -> Facts:
    """For each extra, "installed" or the packages that are missing or too old."""
    from packaging.requirements import Requirement

    by_extra: dict[str, list[str]] = {}
    for requirement in map(Requirement, requires("seattn") or ()):
        marker = str(requirement.marker or "")
        for extra in re.findall(r'extra == "([^"]+)"', marker):
            missing = by_extra.setdefault(extra, [])
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            found = _version(requirement.name)
            if found == "not installed":
                missing.append(f"{requirement.name} is missing")
            elif requirement.name != "seattn" and not requirement.specifier.contains(found, prereleases=True):
                missing.append(f"{requirement.name} is {found}, {requirement.specifier} is needed")
    return {extra: "; ".join(missing) or "installed" for extra, missing in by_extra.items()}


def _devices() -> Facts:
    import torch

    from seattn.core.device import cpu_has_bfloat16
    from seattn.core.rows import conditions

    found = conditions(torch.device("cpu"))
    bfloat16 = "with" if cpu_has_bfloat16() else "without"
    facts = {"commit of seattn": found.commit or "none: an installed package"}
    facts["cpu"] = f"{found.machine}, {bfloat16} bfloat16"
    if flags := _cpu_flags():
        facts["instructions"] = flags
    facts["cuda"] = (
        f"built for {torch.version.cuda or torch.version.hip or 'none'}, {torch.cuda.device_count()} devices"
    )
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        facts[f"cuda:{index}"] = (
            f"{device.name}, {device.total_memory / 2**30:.0f} GiB, compute capability {device.major}.{device.minor}"
        )
    return facts


def _cpu_flags() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""
    line = next((line for line in text.splitlines() if line.lower().startswith(("flags", "features"))), "")
    return " ".join(dict.fromkeys(_FLAGS.findall(line)))


def _kernels() -> Facts:
    import torch

    from seattn.ops import _kernel

    facts = {"choice": _kernel.get_kernels()}
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        try:
            facts[f"on {device}"] = _kernel.choose(torch.empty(1, 1, 1, 1, device=device), lambda x: None)
        except RuntimeError as error:
            facts[f"on {device}"] = first_line(error)
    return facts


def _nets() -> Facts:
    from seattn.models.listing import list_nets

    with_weights = ", ".join(net.name for net in list_nets(pretrained=True))
    return {"registered with timm": str(len(list_nets())), "with weights": with_weights}


def _folders() -> Facts:
    from huggingface_hub import constants

    triton = os.environ.get("TRITON_CACHE_DIR") or str(Path.home() / ".triton" / "cache")
    folders = {"Hugging Face": constants.HF_HUB_CACHE, "Triton": triton}
    return {name: path + ("" if Path(path).is_dir() else " (not there)") for name, path in folders.items()}


def _variables() -> Facts:
    """The environment variables that change what runs; those that may hold a secret only by name."""
    names = sorted(name for name in os.environ if _VARIABLES.match(name))
    shown = {name: "set, not shown" if _SECRET.search(name) else os.environ[name] for name in names}
    return shown or {"set": "none of those of seattn, Triton, OpenMP, MKL, CUDA, torch, Hugging Face"}


_PARTS: dict[str, Callable[[], Facts]] = {
    "system": _system,
    "packages": _packages,
    "extras": _extras,
    "commit and devices": _devices,
    "kernels": _kernels,
    "nets": _nets,
    "cache folders": _folders,
    "environment variables": _variables,
}
