"""Fine-tuning: from a folder of a user's images to a classifier and its score.

Rules (`choose_recipe`) choose a recipe from the number of images, the device and whether the model has trained weights;
`seattn.training.train` then trains it. The run's recipe.yaml holds what was chosen.
"""

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import yaml

from seattn.core.device import default_device, torch_device
from seattn.core.errors import UserError, counted
from seattn.core.files import printable, require_writable, write_text
from seattn.core.rows import AccuracyRow
from seattn.data.folders import UserImages, describe, link_splits, read_folder
from seattn.models.listing import check_name
from seattn.models.load import DIR_PREFIX
from seattn.training.driver import train

RECIPE = "recipe.yaml"
DATA = "data"
_IMBALANCE = 10  # largest class over smallest class; above this ratio all classes are drawn equally often
_logger = logging.getLogger("seattn")


@dataclass(frozen=True)
class FineTuned:
    """A finished run.

    Args:
        run: the folder of the run, which timm loads as "local-dir:<run>".
        row: the row of the test split.
        images: the folder of the splits that the net was trained and tested on.
        device: the name of the device.
    """

    run: Path
    row: AccuracyRow
    images: Path
    device: str

    @property
    def code(self) -> str:
        """A line of Python that loads the net."""
        return f'import seattn, timm; model = timm.create_model("{DIR_PREFIX}{self.run}", pretrained=True).eval()'


def finetune(
    model: str,
    data_dir: Path,
    out_dir: Path | None = None,
    *,
    device: str | None = None,
    seed: int = 0,
    resume: bool = False,
    pretrained: bool = True,
    skip_bad: bool = False,
    overrides: Mapping[str, object] | None = None,
) -> FineTuned:
    """Train `model` on the classes of `data_dir`, and score it on images that took no part in the training.

    Args:
        model: `arch` or `arch.tag` of timm's registry; its trained weights are the start if it has any.
        data_dir: <class>/<image>, of which a tenth is held out for choices and a tenth for the test; or
            train/<class>/<image> with test/… and, if there is one, validation/….
        out_dir: the folder for the run's files; `runs/<model>-<folder>-s<seed>` by default.
        device: "cuda", "cpu", …; by default CUDA where there is one.
        seed: the seed of the split and of the training.
        resume: continue the run in `out_dir`, if there is one.
        pretrained: False starts from random weights.
        skip_bad: leave unreadable images out.
        overrides: recipe keys and their values, in place of those that the rules choose.

    Raises:
        UserError: for a bad folder, an unknown model, or an `out_dir` in use; no file is left behind.
    """
    check_name(model)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError("finetune runs in one process; write a recipe and use torchrun -m seattn train for more")
    name = device or default_device()
    target = torch_device(name)
    run = out_dir or Path("runs") / f"{model}-{data_dir.resolve().name}-s{seed}"
    if not (resume and (run / RECIPE).exists()):
        if run.exists() and (not run.is_dir() or any(run.iterdir())):
            raise UserError(f"{run} exists; give another --out, or --resume to continue the run in it")
        images = read_folder(data_dir, skip_bad=skip_bad)
        recipe = _recipe_for(images, model, data_dir, pretrained=pretrained, on_gpu=target.type == "cuda")
        _write_start({**recipe, "seed": seed}, images, run, overrides or {})
    root = run / DATA if (run / DATA).is_dir() else data_dir
    try:
        row = train(run / RECIPE, root, run, resume=resume, device=name, skip_bad=skip_bad, overrides=overrides)
    except BaseException:
        if not (run / "last.pth.tar").exists():
            _remove(run)
        raise
    assert row is not None  # there is one process
    return FineTuned(run, row, root, name)


def choose_recipe(
    model: str,
    *,
    counts: Sequence[int],
    class_names: Sequence[str],
    pretrained: bool,
    same_size: bool,
    on_gpu: bool,
) -> dict[str, Any]:
    """The recipe that suits a number of images.

    The accuracy depends more on the number of updates than on that of epochs, so fewer images are trained more epochs.

    Args:
        counts: the number of training images of each class.
        pretrained: whether to start from the model's trained weights.
        same_size: whether all images have the model's input size, as CIFAR's have for a CIFAR net.
    """
    images, cfg = sum(counts), timm.get_pretrained_cfg(model)
    assert cfg is not None
    batch = _power_of_two(images // 16, 8, 128 if on_gpu else 64)
    updates = (1500 if on_gpu else 600) if pretrained else (6000 if on_gpu else 2000)
    epochs = min(max(round(updates / max(1, images // batch)), 4), 40 if pretrained else 150)
    ours: dict[str, Any] = {"early_stop": max(5, epochs // 3)}
    recipe: dict[str, Any] = {
        "device_modules": ["seattn"],
        "model": model,
        "num_classes": len(class_names),
        "pretrained": pretrained,
        "lr": round((0.04 if pretrained else 0.1) * batch / 64, 6),
        "momentum": 0.9,
        "weight_decay": 1e-4 if pretrained else 5e-4,
        "batch_size": batch,
        "epochs": epochs,
        "warmup_epochs": max(1, epochs // 10),
        "warmup_lr": 1e-4,
        "sched_on_updates": True,
        "smoothing": 0.1,
        "model_ema": True,  # the accuracy on a few held-out images varies less with averaged weights
        "model_ema_decay": 0.99,
        "model_ema_warmup": True,
        "hflip": 0.5,
        "color_jitter": 0.2,
        "train_interpolation": "bicubic",
        "workers": min(4, os.cpu_count() or 1),
        "channels_last": True,
    }
    if on_gpu:
        recipe.update(amp=True, amp_dtype="bfloat16")
    if pretrained:
        recipe["layer_decay"] = 0.85  # the first layers, which know edges and colours, change least
        if cfg.num_classes == len(class_names) and tuple(cfg.label_names or ()) != tuple(class_names):
            recipe["model_kwargs"] = {"pretrained_cfg_overlay": {"num_classes": 0}}  # else timm keeps the old head
    if same_size:
        ours["crop_padding"] = max(1, cfg.input_size[1] // 8)
    else:
        recipe["scale"] = [0.5, 1.0]
    if max(counts) > _IMBALANCE * min(counts):
        ours["sampling"] = "balanced"
    return {**recipe, "seattn": ours}


def _power_of_two(value: int, low: int, high: int) -> int:
    """The largest power of two up to `value`, but at least `low` and at most `high`, which are powers of two."""
    return min(max(1 << max(0, value.bit_length() - 1), low), high)


def _recipe_for(images: UserImages, model: str, data_dir: Path, *, pretrained: bool, on_gpu: bool) -> dict[str, Any]:
    """The recipe for `model` on the images in `data_dir`; logs what was found there and where the training starts."""
    names, counts = images.class_names, images.counts()
    total = sum(map(len, images.splits.values()))
    _logger.info("%d images in %d classes in %s: %s", total, len(names), data_dir, describe(names, counts))
    if images.skipped:
        _logger.warning("left out, because reading failed: %s", counted(images.skipped, "image"))
    cfg = timm.get_pretrained_cfg(model)
    assert cfg is not None
    starts_trained = bool(pretrained and cfg.has_weights)  # has_weights need not be a bool
    if not pretrained:
        _logger.info("%s starts from random weights, as asked", model)
    elif not starts_trained:
        _logger.info("%s has no trained weights: it starts from scratch, which needs more images and longer", model)
    elif tuple(cfg.label_names or ()) == names:
        _logger.info("%s starts from its trained weights, classifier included: the classes are the same", model)
    else:
        _logger.info("%s starts from its trained weights, with a new classifier of %d classes", model, len(names))
    recipe = choose_recipe(
        model,
        counts=counts,
        class_names=names,
        pretrained=starts_trained,
        same_size=images.sizes == {cfg.input_size[1:]},
        on_gpu=on_gpu,
    )
    recipe["seattn"]["dataset"] = printable(data_dir.resolve().name)
    return recipe


def _write_start(recipe: Mapping[str, Any], images: UserImages, run: Path, overrides: Mapping[str, object]) -> None:
    """Write RUN/recipe.yaml and, where the images are not split yet, RUN/data of links; all or nothing."""
    require_writable(run)
    try:
        if "test" not in images.splits:
            link_splits(images, run / DATA, recipe["seed"])
            _logger.info("%s", _split_line(images, run / DATA))
        write_text(run / RECIPE, yaml.safe_dump(dict(recipe), sort_keys=False))
    except BaseException:
        _remove(run)
        raise
    shown = {**recipe, **overrides}
    line = f"epochs {shown['epochs']}, batch size {shown['batch_size']}, learning rate {shown['lr']}"
    if "layer_decay" in recipe:
        line += f", falling by {recipe['layer_decay']} a layer towards the first"
    if "sampling" in recipe["seattn"]:
        line += (
            f"; the largest class has over {_IMBALANCE} times the images of the smallest: all are drawn equally often"
        )
    _logger.info("recipe: %s", line)


def _split_line(images: UserImages, root: Path) -> str:
    made = [name for name in ("validation", "test") if name not in images.splits]
    counts = {
        split: sum(len(files) for _, _, files in os.walk(root / split)) for split in ("train", "validation", "test")
    }
    listed = ", ".join(f"{split} {count}" for split, count in counts.items())
    return f"split, with a tenth of each class for {' and for '.join(made)}: {listed}; as links in {root}"


def _remove(run: Path) -> None:
    """Remove what `_write_start` wrote: links, not the images that they point to."""
    shutil.rmtree(run / DATA, ignore_errors=True)
    (run / RECIPE).unlink(missing_ok=True)
    if run.is_dir() and not any(run.iterdir()):
        run.rmdir()
