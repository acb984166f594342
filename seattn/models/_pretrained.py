"""Where a model's weights come from: the package first, then the Hub; said in the log, checked by SHA-256."""

import json
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from timm.models import PretrainedCfg, build_model_with_cfg, resolve_pretrained_cfg
from torch import nn

from seattn._files import sha256
from seattn.errors import UserError

HUB_ORG = "seattn"
WEIGHTS = Path(__file__).resolve().parent.parent / "weights"

_logger = logging.getLogger("seattn")


@cache
def weight_index() -> dict[str, dict[str, str]]:
    """`arch.tag` -> {"file", "sha256"} of the weights that ship in the package."""
    index: dict[str, dict[str, str]] = json.loads((WEIGHTS / "index.json").read_text(encoding="utf-8"))
    return index


def weight_source(name: str) -> dict[str, str]:
    """The part of a pretrained cfg that says where the weights of `name` (`arch.tag`) are; empty if there are none."""
    entry = weight_index().get(name)
    if entry is None:
        return {}
    path = WEIGHTS / entry["file"]
    hub = {"hf_hub_id": f"{HUB_ORG}/{name}"}
    return {**hub, "file": str(path)} if path.is_file() else hub


def models_with_weights() -> list[str]:
    """All `arch.tag` of this package that `pretrained=True` can load."""
    return sorted(weight_index())


def check_source(variant: str, cfg: PretrainedCfg) -> None:
    """Say where the weights will come from, and refuse a packaged file that is not the one that was shipped.

    Raises:
        UserError: if there are no weights, or the file's SHA-256 is not the recorded one.
    """
    name = f"{variant}.{cfg.tag}" if cfg.tag else variant
    if cfg.state_dict is not None:
        return
    if cfg.source == "hf-hub" or (cfg.hf_hub_id and not cfg.file):
        _logger.info("%s: weights from the Hub, %s", name, cfg.hf_hub_id)
    elif cfg.file:
        _check_packaged(name, Path(cfg.file))
        _logger.info("%s: weights from the file %s", name, cfg.file)
    elif not cfg.url and not cfg.source:
        available = ", ".join(models_with_weights())
        raise UserError(f"{name} has no pretrained weights yet; those that have: {available}")


def _check_packaged(name: str, path: Path) -> None:
    entry = weight_index().get(name)
    if entry is None or path != WEIGHTS / entry["file"]:
        return  # a file of the user's own: its content is not ours to know
    found = sha256(path)
    if found != entry["sha256"]:
        raise UserError(
            f"{path} is not the file that this version of seattn ships for {name}: SHA-256 {found[:12]}…, "
            f"expected {entry['sha256'][:12]}…; reinstall seattn"
        )


def build(model_cls: Callable[..., nn.Module], variant: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    """timm's `build_model_with_cfg` behind `check_source`."""
    if pretrained:
        overlay = kwargs.get("pretrained_cfg_overlay")
        check_source(variant, resolve_pretrained_cfg(variant, kwargs.get("pretrained_cfg"), overlay))
    model: nn.Module = build_model_with_cfg(model_cls, variant, pretrained, **kwargs)
    return model
