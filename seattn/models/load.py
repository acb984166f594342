"""Build a model and load its weights: from a name, a directory, the Hub or a checkpoint."""

from pathlib import Path
from typing import Any

import timm
from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors import SafetensorError
from timm.models import get_arch_pretrained_cfgs, load_model_config_from_hf, split_model_name_tag
from torch import nn

from seattn.core.device import torch_device
from seattn.core.errors import UserError, first_line
from seattn.core.files import not_found
from seattn.core.records import read_json
from seattn.data.folders.own_splits import set_splits, splits_of_run
from seattn.models import models_with_weights
from seattn.models._hub import fetch_file, hub_call, split_revision, timm_repository
from seattn.models._pretrained import weight_index
from seattn.models.checkpoints.config import read_config
from seattn.models.checkpoints.foreign import load_foreign
from seattn.models.checkpoints.read import require_finite
from seattn.models.listing import check_name, our_models, unknown_model

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
TEMPERATURE = "temperature"  # the key of config.json
HUB_PREFIX = "hf-hub:"
DIR_PREFIX = "local-dir:"
_ATTRIBUTE = "seattn_temperature"  # of a loaded model
# The errors of a download. Which class HfHubHTTPError inherits from depends on the version of huggingface_hub.
HUB_ERRORS: tuple[type[Exception], ...] = (*HfHubHTTPError.__bases__, HFValidationError, OSError)


def load_model(
    spec: str,
    *,
    checkpoint: Path | None = None,
    device: str = "cpu",
    pretrained: bool = True,
    needs_classes: bool = True,
) -> nn.Module:
    """The model that `spec` names, with its weights, in eval mode on `device`.

    Args:
        spec: `arch` or `arch.tag` (also where a directory has this name), a directory with config.json and
            model.safetensors (a run directory of `seattn train`, a staged Hub folder), also as `local-dir:path`, or
            `hf-hub:org/name`.
        checkpoint: weights to load instead: .safetensors, or a .pth of timm or of other code
            (`seattn.models.checkpoints`), of which only tensors are read.
        pretrained: False keeps the random initialisation.
        device: as torch names it: "cpu", "cuda", "cuda:1".
        needs_classes: refuse a net without a classifier, as of `seattn pretrain` or of DINO.

    Raises:
        UserError: naming the unknown name, missing or damaged file, or the first keys that do not fit.
    """
    target = torch_device(device)
    own_weights = pretrained and checkpoint is None
    if spec.startswith(HUB_PREFIX):
        model = _from_hub(spec, pretrained=own_weights)
    elif timm.is_model(spec):
        model = _from_registry(spec, pretrained=own_weights)
    elif is_source(spec):
        model = _from_directory(Path(spec.removeprefix(DIR_PREFIX)), pretrained=own_weights)
    else:
        raise unknown_model(spec)
    if needs_classes and getattr(model, "num_classes", None) == 0:
        raise UserError(f"{spec} has no classifier; seattn finetune {spec} --data-dir DIR trains one")
    if checkpoint is not None:
        load_foreign(model, checkpoint)
    require_finite(model.state_dict(), spec if checkpoint is None else str(checkpoint))
    if checkpoint is not None or (own_weights and not (timm.is_model(spec) or spec.startswith(HUB_PREFIX))):
        set_splits(model, splits_of_run(checkpoint or Path(spec.removeprefix(DIR_PREFIX))))
    return model.eval().to(target)


def model_temperature(model: nn.Module) -> float:
    """The temperature by which the model's logits are divided for its probabilities: 1 unless one was fitted.

    It is in a directory's config.json, or in the index of the package's weights. The model's own outputs are its
    logits, without the temperature.
    """
    return float(getattr(model, _ATTRIBUTE, 1.0))


def set_temperature(model: nn.Module, temperature: float | None) -> None:
    """Give the model the temperature that `model_temperature` returns; None means 1."""
    setattr(model, _ATTRIBUTE, temperature or 1.0)


def is_source(spec: str) -> bool:
    """Whether `spec` is written like a directory or a repository of the Hub, and not like a name of the registry."""
    return spec.startswith((HUB_PREFIX, DIR_PREFIX)) or Path(spec).is_dir() or "/" in spec


def read_architecture(spec: str) -> tuple[str, dict[str, Any]]:
    """The architecture and its `model_args`, without `num_classes`, in config.json of a directory or Hub repository.

    Raises:
        UserError: if there is no such file, or it names no architecture that is known here.
    """
    if spec.startswith(HUB_PREFIX):
        with hub_call(spec.removeprefix(HUB_PREFIX), HUB_ERRORS):
            _, name, args = load_model_config_from_hf(spec.removeprefix(HUB_PREFIX))
    else:
        config = read_json(Path(spec.removeprefix(DIR_PREFIX)) / CONFIG)
        name, args = config.get("architecture"), config.get("model_args")
    if not (isinstance(name, str) and timm.is_model(name) and isinstance(args, dict | None)):
        raise UserError(f"{spec}: {CONFIG} names no architecture that is known here, it has {name!r}")
    return name, {key: value for key, value in (args or {}).items() if key != "num_classes"}


def _from_registry(spec: str, *, pretrained: bool) -> nn.Module:
    check_name(spec)
    name, tag = split_model_name_tag(spec)
    configs = get_arch_pretrained_cfgs(name)
    if pretrained and not any(cfg.has_weights for key, cfg in configs.items() if not tag or key == spec):
        available = ", ".join(models_with_weights())
        raise UserError(f"{spec} has no trained weights; give a checkpoint, or a model that has some: {available}")
    if not pretrained or name in our_models():
        model = timm.create_model(spec, pretrained=pretrained)
        if pretrained:
            cfg: Any = model.pretrained_cfg
            weights = f"{name}.{cfg['tag']}"
            set_temperature(model, weight_index().get(weights, {}).get(TEMPERATURE))
        return model
    try:
        with hub_call(timm_repository(spec) or spec, HUB_ERRORS):
            return timm.create_model(spec, pretrained=pretrained)
    except SafetensorError as error:
        raise _damaged(timm_repository(spec) or spec, error) from error


def _from_hub(spec: str, *, pretrained: bool) -> nn.Module:
    repo = spec.removeprefix(HUB_PREFIX)
    try:
        config = _read_config_of(repo)
        with hub_call(repo, HUB_ERRORS):
            model: Any = timm.create_model(spec, pretrained=pretrained)
        if pretrained:
            set_temperature(model, config.get(TEMPERATURE))
        return model
    except UserError:
        raise
    except SafetensorError as error:
        raise _damaged(repo, error) from error
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        message = " ".join(str(error).split())[:300]  # the second line names the keys that do not fit
        raise UserError(f"{spec} holds no model that timm can build here: {message or type(error).__name__}") from error


def _read_config_of(repo: str) -> dict[str, Any]:
    path = fetch_file(repo, CONFIG)  # timm takes it from the cache
    try:
        return read_config(path)
    except UserError as error:
        raise UserError(f"{HUB_PREFIX}{repo}: {str(error).replace(str(path), CONFIG)}") from error


def _damaged(repo: str, error: SafetensorError) -> UserError:
    """The error about weights in the cache of the Hub, with the file to delete."""
    name, revision = split_revision(repo)
    path = try_to_load_from_cache(name, WEIGHTS, revision=revision)
    file = path if isinstance(path, str) else f"the weights of {repo} in {constants.HF_HUB_CACHE}"
    return UserError(f"cannot read {file}: {first_line(error)}; delete it and run this again to download it")


def _from_directory(folder: Path, *, pretrained: bool) -> nn.Module:
    config = folder / CONFIG
    if not folder.is_dir():
        raise UserError(not_found("model or directory", folder))
    for path in (config, folder / WEIGHTS) if pretrained else (config,):
        if not path.is_file():
            raise UserError(f"{folder} has no {path.name}; a model directory holds {CONFIG} and {WEIGHTS}")
    content = read_config(config)
    name = content["architecture"]
    if not timm.is_model(name):
        raise UserError(f"{config}: {unknown_model(name)}")
    try:
        # The weights are loaded below, not by timm, which replaces a head of another size by a random one.
        model = timm.create_model(f"{DIR_PREFIX}{folder}", pretrained=False)
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise UserError(f"{config} does not describe a model that can be built: {first_line(error)}") from error
    if pretrained:
        load_foreign(model, folder / WEIGHTS)
        set_temperature(model, content.get(TEMPERATURE))
    return model
