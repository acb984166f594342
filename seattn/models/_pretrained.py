"""Weights of a model: from the package first, then from the Hub, checked by SHA-256; the log names the source.

The environment variable SEATTN_HUB_ORG names another organisation on the Hub, and huggingface_hub's HF_ENDPOINT another
Hub. Both are read when seattn is imported.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from timm.models import PretrainedCfg, build_model_with_cfg, resolve_pretrained_cfg
from torch import nn

from seattn.core.errors import UserError, first_line
from seattn.core.files import sha256

DEFAULT_ORG = "seattn"
HUB_ORG = os.environ.get("SEATTN_HUB_ORG") or DEFAULT_ORG
WEIGHTS = Path(__file__).resolve().parent / "weights"
HUB_FILE = "model.safetensors"

_logger = logging.getLogger("seattn")


@cache
def weight_index() -> dict[str, dict[str, Any]]:
    """`arch.tag` -> {"file", "sha256"} of the weights that belong to this version of the package.

    An entry may have a "temperature", which was fitted on the images that the run held out.
    """
    return json.loads((WEIGHTS / "index.json").read_text(encoding="utf-8"))


def weight_source(name: str) -> dict[str, str]:
    """The part of a pretrained cfg that says where the weights of `name` (`arch.tag`) are; empty if there are none."""
    entry = weight_index().get(name)
    if entry is None:
        return {}
    path = WEIGHTS / entry["file"]
    hub = {"hf_hub_id": hub_repository(name)}
    return {**hub, "file": str(path)} if path.is_file() else hub


def hub_repository(name: str) -> str:
    """The repository on the Hub of the weights `name` (`arch.tag`)."""
    return f"{HUB_ORG}/{name}"


def models_with_weights() -> list[str]:
    """All `arch.tag` of this package that `pretrained=True` can load."""
    return sorted(weight_index())


def find_weights(variant: str, cfg: PretrainedCfg, cache_dir: Path | str | None = None) -> Path | None:
    """The file of the weights that `cfg` asks for, downloaded from the Hub if necessary, and checked.

    None if timm loads the weights itself: from a state dict, a URL or a folder.

    Raises:
        UserError: if there are no weights, they cannot be downloaded, or the file is not the published one.
    """
    name = _name(variant, cfg)
    if cfg.state_dict is not None or cfg.source == "local-dir":
        return None
    if cfg.source != "hf-hub" and cfg.file:
        path = Path(cfg.file)
        if name in weight_index() and path == WEIGHTS / weight_index()[name]["file"]:
            check_pinned(name, path, "reinstall seattn")
        return path
    if cfg.hf_hub_id:
        return _from_hub(name, cfg, cache_dir)
    if not cfg.url:
        available = ", ".join(models_with_weights())
        raise UserError(f"{name} has no pretrained weights yet; those that have: {available}")
    return None


def check_pinned(name: str, path: Path, remedy: str) -> None:
    """Check that `path` is the file of weights that this version of the package expects for `name`.

    Raises:
        UserError: with the file's name and `remedy`.
    """
    wanted = weight_index()[name]["sha256"]
    found = sha256(path)
    if found != wanted:
        raise UserError(
            f"{path} is not the file that this version of seattn ships for {name}: SHA-256 {found[:12]}…, "
            f"expected {wanted[:12]}…; {remedy}"
        )


def _from_hub(name: str, cfg: PretrainedCfg, cache_dir: Path | str | None) -> Path:
    from seattn.models._hub import fetch_file

    repo, file = str(cfg.hf_hub_id), cfg.hf_hub_filename or HUB_FILE
    if not file.endswith(".safetensors") or ".." in Path(file).parts:
        raise UserError(f"{repo} says that its weights are {file[:60]!r}; only .safetensors is read from the Hub")
    path = fetch_file(repo, file, cache_dir=cache_dir)
    if cfg.source == "hf-hub":
        _check_head(path, cfg)
    if name in weight_index() and cfg.source != "hf-hub":  # a name of this package, not of a repository
        blob = path.resolve()
        remedy = f"delete {blob} to download it again; if that does not help, use the version of seattn that has it"
        check_pinned(name, path, remedy)
    return path


def _check_head(path: Path, cfg: PretrainedCfg) -> None:
    """Check that the weights have as many classes as config.json says: otherwise timm keeps a random classifier."""
    with _whole_weights(str(path)), safe_open(path, "pt") as file:
        key = f"{cfg.classifier}.weight"
        rows = file.get_slice(key).get_shape()[0] if key in file.keys() else cfg.num_classes  # noqa: SIM118 no dict
    if rows != cfg.num_classes:
        raise UserError(f"config.json of {cfg.hf_hub_id} says {cfg.num_classes} classes, its weights have {rows}")


@contextmanager
def _whole_weights(where: str) -> Iterator[None]:
    try:
        yield
    except SafetensorError as error:
        raise UserError(f"{where} is not a whole safetensors file: {first_line(error)}") from error


def _name(variant: str, cfg: PretrainedCfg) -> str:
    return f"{variant}.{cfg.tag}" if cfg.tag else variant


def build(model_cls: Callable[..., nn.Module], variant: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    """timm's `build_model_with_cfg` with the weights of `find_weights`; the log names their source."""
    overlay = kwargs.pop("pretrained_cfg_overlay", None) or {}
    path = None
    if pretrained:
        cfg = resolve_pretrained_cfg(variant, kwargs.get("pretrained_cfg"), overlay)
        path = find_weights(variant, cfg, kwargs.get("cache_dir"))
    if path is None:
        plain: nn.Module = build_model_with_cfg(
            model_cls, variant, pretrained, pretrained_cfg_overlay=overlay, **kwargs
        )
        return plain
    # timm prefers a file to the Hub. Afterwards the model's cfg names the source that was asked for.
    found = {**overlay, "file": str(path), "source": None}
    with _whole_weights(str(path)):
        model: Any = build_model_with_cfg(model_cls, variant, True, pretrained_cfg_overlay=found, **kwargs)
    for key, value in (("file", cfg.file), ("source", cfg.source)):
        if value is None:
            model.pretrained_cfg.pop(key, None)
        else:
            model.pretrained_cfg[key] = value
    _logger.info("%s: weights from %s", _name(variant, cfg), _source(cfg, path))
    return model


def _source(cfg: PretrainedCfg, path: Path) -> str:
    if path == Path(cfg.file or "") and cfg.source != "hf-hub":
        return f"the file {path}"
    from huggingface_hub import constants

    return f"the Hub, {constants.ENDPOINT}/{cfg.hf_hub_id}"
