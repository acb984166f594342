"""A checkpoint of timm's train.py, or a run, as a folder that timm loads: model.safetensors and config.json.

Of a pickle only tensors and plain values are read; nothing in it is executed.
"""

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
from safetensors.torch import save_file
from timm.models import split_model_name_tag

from seattn.core.errors import UserError, first_line
from seattn.core.files import is_one_line, whole_folder
from seattn.core.recipe import load_recipe
from seattn.core.records import read_text, read_yaml
from seattn.data.transforms import PREPROCESSING, output_names
from seattn.models.checkpoints.config import read_config
from seattn.models.checkpoints.folder import NOT_OF_A_NET, check_config, check_weights, render_config
from seattn.models.checkpoints.foreign import load_foreign
from seattn.models.checkpoints.read import read_checkpoint, require_finite, unwrap
from seattn.models.listing import check_name
from seattn.models.load import CONFIG, WEIGHTS

_logger = logging.getLogger("seattn")


@dataclass(frozen=True)
class _Origin:
    """The contents of files beside the weights: model, its arguments, timm's command line (`args`), class names."""

    model: str | None = None
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    args: Mapping[str, Any] = field(default_factory=dict)
    labels: Sequence[str] | Mapping[Any, str] | None = None


def import_checkpoint(
    checkpoint: Path, folder: Path, *, model: str | None = None, averaged: bool = True, labels: Path | None = None
) -> str:
    """Write the weights in `checkpoint` into `folder`, completely or not at all; returns the name of the model.

    Args:
        checkpoint: a checkpoint of torch, a .safetensors file, or the folder of a run of timm or seattn, whose best
            weights are taken (the last ones if the recipe has no early stop).
        folder: a new or empty folder.
        model: `arch` or `arch.tag`, if the checkpoint does not name it.
        averaged: False takes the trained weights even if there are averaged ones (EMA).
        labels: a text file with the name of one output on each line; by default the names of the run or of the tag, or
            "class 0", "class 1", ... if there are none.

    Raises:
        UserError: if the file is not a checkpoint, holds other objects than tensors and plain values, or does not fit.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists; give another folder")
    path, origin = (_find(checkpoint), _origin(checkpoint)) if checkpoint.is_dir() else (checkpoint, _Origin())
    content = read_checkpoint(path)
    origin = _with_args(origin, content, path)
    name = model or origin.model
    if name is None:
        raise UserError(f"{checkpoint} does not name its model; give --model")
    check_name(name)
    state = unwrap(content, str(path), averaged=averaged)
    names = _read_labels(labels) if labels is not None else origin.labels
    net = _build(name, origin, _classes(name, state, names), path)
    keys = set(net.state_dict())
    load_foreign(net, state, origin=str(path))
    if set(net.state_dict()) != keys:
        raise UserError(
            f"{path} is of a net that no config.json describes; load it with seattn.models.checkpoints.load_foreign"
        )
    require_finite(net.state_dict(), str(path))
    _set_labels(net, name, names)
    _logger.info("%s: %s weights of %s", path, _which(content, averaged), name)
    with whole_folder(folder) as part:
        (part / CONFIG).write_text(render_config(net, name), encoding="utf-8")
        tensors = {key: value.contiguous() for key, value in net.state_dict().items()}
        save_file(tensors, part / WEIGHTS, metadata={"format": "pt"})
        check_weights(part / WEIGHTS, check_config(part / CONFIG))
    return name


def _find(run: Path) -> Path:
    """The file of a run's weights: the best ones, or the last ones if our recipe has no early stop."""
    ours = run / "recipe.yaml"
    last = ours.is_file() and load_recipe(ours).seattn.early_stop is None
    order = ("last", "model_best") if last else ("model_best", "last")
    paths = [run / f"{name}.pth.tar" for name in order] + [run / WEIGHTS]
    for path in paths:
        if path.is_file():
            return path
    raise UserError(f"{run} holds no weights: none of {', '.join(path.name for path in paths)}")


def _origin(run: Path) -> _Origin:
    """What the files beside the weights of a run say."""
    if (run / "recipe.yaml").is_file():
        recipe = load_recipe(run / "recipe.yaml")
        labels = read_config(run / CONFIG).get("label_names") if (run / CONFIG).is_file() else None
        return _Origin(recipe.model, recipe.model_kwargs, labels=labels)
    if (run / "args.yaml").is_file():
        path = run / "args.yaml"
        return _from_args(read_yaml(path, "arguments", "model: resnet18"), path)
    if (run / CONFIG).is_file():
        config = read_config(run / CONFIG)
        return _Origin(config.get("architecture"), config.get("model_args") or {}, labels=config.get("label_names"))
    return _Origin()


def _with_args(origin: _Origin, content: object, path: Path) -> _Origin:
    """`origin` if it names a model; otherwise the model and arguments that timm's script wrote into the checkpoint."""
    if origin.model is not None or not isinstance(content, Mapping):
        return origin
    args = content.get("args")
    if isinstance(args, argparse.Namespace):
        return _from_args(vars(args), path)
    arch = content.get("arch")  # without arguments, timm's saver writes the name of a class
    return _Origin(arch if isinstance(arch, str) and timm.is_model(arch) else None)


def _from_args(args: Mapping[str, Any], source: Path) -> _Origin:
    name, kwargs = args.get("model"), args.get("model_kwargs") or {}
    if not isinstance(name, str) or not isinstance(kwargs, Mapping):
        raise UserError(
            f"{source}: the arguments name no model and its model_kwargs; the file is not of timm's train.py"
        )
    given = {"in_chans": args.get("in_chans"), "global_pool": args.get("gp")}
    return _Origin(name, {**kwargs, **{key: value for key, value in given.items() if value is not None}}, args)


def _classes(name: str, state: Mapping[str, Any], names: Sequence[str] | Mapping[Any, str] | None) -> int | None:
    """The number of outputs of the weights; None keeps the model's own number."""
    cfg = timm.get_pretrained_cfg(name)
    classifier = cfg.classifier if cfg is not None else None
    first = classifier[0] if isinstance(classifier, tuple | list) else classifier
    for key, weight in state.items():
        if f".{key}".endswith(f".{first}.weight") and weight.ndim > 1:
            return int(weight.shape[0])
    return None if names is None else len(names)


def _build(name: str, origin: _Origin, classes: int | None, path: Path) -> Any:
    for key in NOT_OF_A_NET:
        if key in origin.model_kwargs:
            raise UserError(
                f"{path}: the model's argument {key} is not a property of a net; give --model and a checkpoint"
            )
    kwargs = {**origin.model_kwargs, **({} if classes is None else {"num_classes": classes})}
    try:
        net: Any = timm.create_model(name, pretrained=False, **kwargs)
        found = timm.data.resolve_data_config(dict(origin.args), model=net) if origin.args else {}
    except Exception as error:  # timm can raise any exception for wrong values
        raise UserError(f"{path} does not describe a net that can be built: {first_line(error)[:200]}") from error
    net.pretrained_cfg.update({key: found[key] for key in PREPROCESSING if key in found})
    return net


def _read_labels(path: Path) -> list[str]:
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if len(set(names)) != len(names) or not names or not all(map(is_one_line, names)):
        count = f"{len(set(names))} different in {len(names)} lines"
        raise UserError(f"{path} must have a different name on each line, without control characters; it has {count}")
    return names


def _set_labels(net: Any, name: str, names: Sequence[str] | Mapping[Any, str] | None) -> None:
    """Put names of the outputs into the net's cfg: the given ones, or else those of the tag, or else numbers."""
    own = output_names(net.pretrained_cfg.get("label_names"), net.num_classes)
    _, tag = split_model_name_tag(name)
    if isinstance(names, Mapping):
        names = output_names(names, net.num_classes)
    if names is not None:
        if len(names) != net.num_classes:
            raise UserError(f"{len(names)} labels for {net.num_classes} outputs; give a name for each, in their order")
        own = tuple(names)
    elif tag and len(own) == net.num_classes:
        _logger.info("the outputs have the names of %s; --labels gives other names", name)
    else:
        own = tuple(f"class {i}" for i in range(net.num_classes))
        _logger.warning("the checkpoint has no names of its outputs, which are numbered; --labels gives names")
    net.pretrained_cfg.update(label_names=own, num_classes=net.num_classes)


def _which(content: object, averaged: bool) -> str:
    has = isinstance(content, Mapping) and any(content.get(key) for key in ("state_dict_ema", "model_ema"))
    return "averaged" if has and averaged else "trained"
