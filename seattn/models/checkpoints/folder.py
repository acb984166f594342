"""A folder for the Hub: config.json and model.safetensors, written from a model, and checked if others wrote them."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open
from timm.models import PretrainedCfg, save_for_hf, split_model_name_tag
from torch import nn

from seattn.core.errors import UserError, first_line
from seattn.data.transforms import class_names, eval_transform
from seattn.models.checkpoints.config import read_config
from seattn.models.load import CONFIG, TEMPERATURE, model_temperature

_TIMMS = {"architecture", "num_classes", "num_features", "global_pool", "label_names", "model_args", "pretrained_cfg"}
_ROOT = _TIMMS | {TEMPERATURE}
# The loader decides the source of the weights, so these fields of a cfg are not read.
_SOURCES = ("url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "architecture", "label_offset")
_WEIGHTS = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict", "checkpoint_path")
_PLACES = ("cache_dir", "device", "dtype")
_FORMS = ("features_only", "out_indices", "feature_cfg", "scriptable", "exportable", "no_jit")
NOT_OF_A_NET = _WEIGHTS + _PLACES + _FORMS  # arguments of timm.create_model that are not properties of a net
_CFG = {field.name for field in fields(PretrainedCfg)} - set(_SOURCES)


def render_config(model: Any, name: str) -> str:
    """The text of config.json for `model`, whose weights are called `name`."""
    with tempfile.TemporaryDirectory() as folder:
        save_net(model, Path(folder), class_names(model))
        config = json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8"))
    _, tag = split_model_name_tag(name)
    cfg = {key: value for key, value in config["pretrained_cfg"].items() if key != "tag"}
    config["pretrained_cfg"] = {**({"tag": tag} if tag else {}), **cfg}
    if model_temperature(model) != 1:
        config[TEMPERATURE] = model_temperature(model)
    return json.dumps(config, indent=2) + "\n"


def save_net(model: nn.Module, folder: Path, label_names: Sequence[str]) -> None:
    """Write config.json and model.safetensors into `folder`, as timm's `save_for_hf` does, for transformers too.

    The number of classes is not among `model_args`: transformers gives it to `timm.create_model` by itself.
    """
    save_for_hf(model, str(folder), model_config={"label_names": list(label_names)}, safe_serialization=True)
    path = folder / CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    config.get("model_args", {}).pop("num_classes", None)
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")


def check_config(path: Path) -> nn.Module:
    """The net that config.json describes, on the device "meta", where large sizes take no memory.

    Raises:
        UserError: naming the key that is unknown, missing or of a wrong type, or that no net accepts.
    """
    config = read_config(path)
    _keys(config, _ROOT, path, "")
    name, cfg = config["architecture"], config.get("pretrained_cfg", {})
    if not timm.is_model(name):
        raise UserError(f"{path}: architecture {_short(name)} is not a net of timm or seattn; is seattn up to date?")
    _keys(cfg, _CFG, path, "pretrained_cfg.")
    for key in ("input_size", "mean", "std"):
        if not cfg.get(key):
            raise UserError(f"{path}: pretrained_cfg has no {key}")
    for key in NOT_OF_A_NET:
        if key in config.get("model_args", {}):
            raise UserError(f"{path}: model_args.{key} is not a property of a net; remove the key")
    if cfg.get("custom_load"):
        raise UserError(f"{path}: pretrained_cfg.custom_load reads other files than safetensors; it must be false")
    _check_classes(config, cfg, path)
    return _build(path, config)


def _keys(found: Mapping[str, Any], known: set[str], path: Path, prefix: str) -> None:
    for key in found:
        if key not in known:
            raise UserError(f"{path}: unknown key {_short(prefix + key)}; known: {', '.join(sorted(known))}")


def _check_classes(config: Mapping[str, Any], cfg: Mapping[str, Any], path: Path) -> None:
    classes, names = config.get("num_classes"), config.get("label_names")
    if not classes:
        raise UserError(f"{path}: num_classes must be at least 1, it is {_short(classes)}")
    if not isinstance(names, list):
        raise UserError(f"{path}: label_names must be a list of names")
    if len(names) != classes or len(set(names)) != classes:
        raise UserError(f"{path}: {len(set(names))} different label_names for num_classes {classes}; a name for each")
    for where, inner in (("pretrained_cfg", cfg), ("model_args", config.get("model_args", {}))):
        if inner.get("num_classes", classes) != classes:
            raise UserError(f"{path}: {where}.num_classes is {_short(inner['num_classes'])}, num_classes {classes}")
    if list(cfg.get("label_names", names)) != names:
        raise UserError(f"{path}: pretrained_cfg.label_names differ from label_names; they must agree")


def _build(path: Path, config: Mapping[str, Any]) -> nn.Module:
    try:
        with torch.device("meta"):
            model: Any = timm.create_model(f"local-dir:{path.parent}", pretrained=False)
        eval_transform(model)
        outputs, features = int(model.num_classes), int(model.num_features)
    except Exception as error:  # timm can raise any exception for wrong values
        raise UserError(f"{path} does not describe a net that can be built: {first_line(error)[:200]}") from error
    if (outputs, features) != (config["num_classes"], config.get("num_features", features)):
        raise UserError(
            f"{path}: num_classes {config['num_classes']} and num_features {_short(config.get('num_features'))}; "
            f"{config['architecture']} with these model_args has {outputs} and {features}"
        )
    return model


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


_FLOATS = (torch.float16, torch.bfloat16, torch.float32)


def check_weights(path: Path, model: nn.Module) -> str:
    """Check that `path` has the keys, shapes and dtypes of `model`, and no NaN; returns a summary in words.

    Raises:
        UserError: naming the first tensor that is different.
    """
    wanted = model.state_dict()
    try:
        with safe_open(str(path), "pt") as file:
            keys = set(file.keys())
            for key in sorted(keys ^ set(wanted)):
                raise UserError(
                    f"{path}: the net {'has no' if key in keys else 'needs'} {key}; is config.json of another net?"
                )
            for key, tensor in wanted.items():  # shapes are in the header: no tensor is read before they fit
                shape = tuple(file.get_slice(key).get_shape())
                if shape != tuple(tensor.shape):
                    raise UserError(f"{path}: {key} is {shape}, the net needs {tuple(tensor.shape)}")
            dtypes = [_check_values(file.get_tensor(key), tensor, f"{path}: {key}") for key, tensor in wanted.items()]
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is not a whole safetensors file: {first_line(error)}; get it again") from error
    parts = (f"{dtypes.count(dtype)} {str(dtype).removeprefix('torch.')}" for dtype in sorted(set(dtypes), key=str))
    return f"{len(dtypes)} tensors ({', '.join(parts)}) as {type(model).__name__} needs them, no NaN"


def _check_values(found: torch.Tensor, wanted: torch.Tensor, where: str) -> torch.dtype:
    fits = found.dtype in _FLOATS if wanted.is_floating_point() else found.dtype == wanted.dtype
    if not fits:
        right = "float16, bfloat16 or float32" if wanted.is_floating_point() else wanted.dtype
        raise UserError(f"{where} is {found.dtype}; it must be {right}")
    if not bool(found.isfinite().all()):
        raise UserError(f"{where} has NaN or infinite values; these weights are broken")
    return found.dtype
