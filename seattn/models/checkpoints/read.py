"""State dicts with plain keys from files and dicts of weights; from a pickle only tensors and plain values are read."""

import argparse
import tarfile
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import clean_state_dict

from seattn.core.errors import UserError, first_line
from seattn.core.files import not_found

# The keys under which checkpoints hold weights: those of timm and others; averaged weights first.
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "params_ema", "ema")
_WRAPPERS = ("state_dict", "model", "net", "model_state_dict", "checkpoint")
# The names of modules that hold the net: in Lightning, transformers, detectors and self-supervised training.
_PREFIXES = ("model.", "timm_model.", "backbone.", "encoder.", "module.", "_orig_mod.")
# The counters that thop and torch.optim.swa_utils add to the weights.
_COUNTERS = ("total_ops", "total_params", "n_averaged")
_MOST_COMPRESSED = 10  # times that a file may be smaller than what it holds, if somebody compressed it
# timm's checkpoints carry the argparse.Namespace of the run that wrote them; metrics are often numbers of numpy.
_PLAIN_VALUES: list[Any] = [
    argparse.Namespace,
    PosixPath,
    np.dtype,
    np.ndarray,
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),  # numpy 1, 2
    *((np.zeros(1).__reduce__()[0], f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *(type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "?")),
]
# Names in the archives of torch that hold programs, and what such a file is.
_ARCHIVES = {
    "/code/__torch__": "a TorchScript program",
    "/constants.pkl": "a TorchScript program",
    "/archive_format": "a program of torch.export",
    "/models/model.json": "a program of torch.export",
}
_PRINTABLE = bytes(range(32, 127)) + b"\t\r\n"


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """The weights in a .safetensors file or a checkpoint of torch, averaged ones (EMA) preferred.

    Raises:
        UserError: if the file is missing, damaged, or holds anything but weights.
    """
    return unwrap(read_checkpoint(path), str(path))


def read_checkpoint(path: Path) -> object:
    """All that a .safetensors file or a checkpoint of torch holds, as tensors and plain values.

    Raises:
        UserError: if the file is missing, damaged, or holds anything else.
    """
    if not path.is_file():
        raise UserError(not_found("checkpoint", path))
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} is not a whole safetensors file: {first_line(error)}") from error
    return _torch_load(path)


def unwrap(content: object, origin: str, *, averaged: bool = True) -> dict[str, torch.Tensor]:
    """The state dict in `content`, alone or under a usual key, without prefixes that all its keys have.

    Args:
        averaged: False ignores averaged weights (EMA).

    Raises:
        UserError: naming `origin`, if there is no state dict, or naming a tensor that is sparse.
    """
    found = _find_state(content, (*(_AVERAGED if averaged else ()), *_WRAPPERS))
    if found is None:
        raise UserError(f"{origin} holds no weights: expected a state dict, alone or under 'state_dict'")
    state = {key: value for key, value in found.items() if key.rpartition(".")[2] not in _COUNTERS}
    for key, value in state.items():
        if value.layout is not torch.strided:
            raise UserError(f"{origin}: {key} is a sparse tensor; save {key}.to_dense() instead")
        if value.is_meta or value.is_nested:
            kind = "a nested tensor" if value.is_nested else "a tensor without values, on the device meta"
            raise UserError(f"{origin}: {key} is {kind}; save a plain tensor instead")
    return _without_prefixes(clean_state_dict(state))


def _find_state(content: object, wrappers: Sequence[str]) -> Mapping[str, torch.Tensor] | None:
    """The state dict in `content`: under one of `wrappers`, or `content` itself, or the only one that is in it."""
    if not isinstance(content, Mapping):
        return None
    for key in wrappers:
        if isinstance(content.get(key), Mapping):
            return _find_state(content[key], wrappers)
    if _is_state(content):
        return content
    states = [value for value in content.values() if _is_state(value)]
    return states[0] if len(states) == 1 else None


def _is_state(value: object) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(v, torch.Tensor) for v in value.values())


def require_finite(state: Mapping[str, torch.Tensor], origin: str) -> None:
    """Check that no tensor of `state` has NaN or infinite values.

    Raises:
        UserError: naming `origin` and the first such tensor.
    """
    for key, value in state.items():
        if not bool(value.isfinite().all()):
            raise UserError(
                f"{origin}: {key} has NaN or infinite values: this training broke; take an earlier checkpoint"
            )


def _without_prefixes(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    for prefix in _PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            return _without_prefixes({key.removeprefix(prefix): value for key, value in state.items()})
    return state


def _check_size(path: Path) -> None:
    """Refuse a zip file that is much smaller than what it unpacks to; torch does not compress checkpoints."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return  # torch also reads files of its old format, and names what is wrong with any other
    packed = path.stat().st_size
    if unpacked > _MOST_COMPRESSED * packed:
        raise UserError(
            f"{path} has {packed:,} bytes and would unpack to {unpacked:,}; checkpoints are not compressed, so it is "
            "damaged or made to fill the memory"
        )


def _torch_load(path: Path) -> object:
    _check_size(path)
    try:
        with torch.serialization.safe_globals(_PLAIN_VALUES), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of a TorchScript program before it refuses the program
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises anything: IndexError, struct.error, EOFError ...
        raise UserError(f"{path} {_why_unreadable(path)}") from error


def _why_unreadable(path: Path) -> str:
    """What is wrong with a file that torch.load refuses; torch's own message names no cause or advises to unpickle."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
        parts = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else []
        is_tar = tarfile.is_tarfile(path)
    except (OSError, zipfile.BadZipFile) as error:
        return f"cannot be read: {first_line(error)}"
    kind = next((kind for part, kind in _ARCHIVES.items() if any(part in name for name in parts)), None)
    if kind:
        return f"is {kind}, not a checkpoint; save the state dict of its net with torch.save, and give that file"
    if parts and not any(name.endswith("/data.pkl") for name in parts):
        return f"is a zip archive with {parts[0]} and no weights; give a file that torch.save wrote"
    if not head:
        return "is empty; get it again"
    if head.startswith(b"PK") and not parts:
        return "is damaged: its end is missing or altered; get it again"
    if is_tar:
        return "is an archive in torch's format from before 2018; save it again with a newer torch"
    if head[8:9] == b"{":
        return "is a safetensors file by its content; give it the suffix .safetensors"
    if not head.translate(None, _PRINTABLE):
        first = head.decode("ascii").strip().split("\n")[0]
        return f"is a text that begins with {first[:40]!r}, not a checkpoint; get it again"
    return "is damaged or holds other objects than weights, which are never unpickled; give a state dict"
