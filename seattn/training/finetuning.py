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
from safetensors.torch import save

from seattn.core.device import default_device, torch_device
from seattn.core.errors import UserError, counted
from seattn.core.files import atomic_path, printable, require_writable, write_text
from seattn.core.recipe import load_recipe, parse_recipe, replace_keys
from seattn.core.rows import AccuracyRow
from seattn.data.folders.files import list_files
from seattn.data.folders.linking import link_splits
from seattn.data.folders.own_splits import DATA, images_of_runs, splits_of_run
from seattn.data.folders.reading import UserImages, read_folder
from seattn.data.folders.splits import check_out, find_split
from seattn.data.images import FileSet, leave_out_unreadable
from seattn.data.labels import read_labelled
from seattn.data.transforms import PREPROCESSING, output_names
from seattn.models.listing import check_name
from seattn.models.load import DIR_PREFIX, is_source, load_model, read_architecture
from seattn.training.build import classifier_keys, load_all_but_classifier
from seattn.training.driver import train
from seattn.training.run_dir import no_run

RECIPE = "recipe.yaml"
START = "start.safetensors"
_COUNTS_SHOWN = 12  # classes whose counts are printed
_IMBALANCE = 10  # largest class over smallest class; above this ratio all classes are drawn equally often
_logger = logging.getLogger("seattn")


@dataclass(frozen=True)
class FineTuned:
    """A finished run.

    Args:
        run: the folder of the run, which timm loads as `local-dir:<run>`.
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


def tested_files(run: Path, root: Path, *, skip_bad: bool) -> FileSet:
    """The images of the test split of `root`, read as the run in the folder `run` reads images."""
    files = list_files(find_split(root, "test"), exif=load_recipe(run / RECIPE).seattn.exif)
    return leave_out_unreadable(files, "test", warn=False) if skip_bad else files


def finetune(
    model: str,
    data_dir: Path,
    out_dir: Path | None = None,
    *,
    checkpoint: Path | None = None,
    labels: Path | None = None,
    test_labels: Path | None = None,
    device: str | None = None,
    seed: int = 0,
    resume: bool = False,
    pretrained: bool = True,
    skip_bad: bool = False,
    overrides: Mapping[str, object] | None = None,
    start: "Start | None" = None,
) -> FineTuned:
    """Train `model` on the classes of `data_dir`, and score it on images that took no part in the training.

    Args:
        model: `arch` or `arch.tag` of timm's registry, the folder of a run, `local-dir:FOLDER`, `hf-hub:ORG/NAME`, or a
            checkpoint in the folder of a run; its trained weights are the start if it has any.
        data_dir: `<class>/<image>`, of which a tenth is held out for choices and a tenth for the test; or
            `train/<class>/<image>`, test/… and validation/…; a missing split is a tenth of each class of train.
        out_dir: the folder for the run's files; `runs/<model>-<folder>-s<seed>` by default.
        checkpoint: weights to start from instead, as for `load_model`.
        labels, test_labels: tables of the images below `data_dir` and their classes, instead of class folders.
        device: "cuda", "cpu", …; by default CUDA where there is one.
        seed: the seed of the split and of the training. If the net comes from a run, each image of that run stays in
            the split that it had there.
        resume: continue the run in `out_dir`; a finished run only with more `epochs` in `overrides`.
        pretrained: False starts from random weights.
        skip_bad: leave unreadable images out.
        overrides: recipe keys and their values, in place of those that the rules choose.
        start: the net and weights to start from, in place of those of `model` and `checkpoint`.

    Raises:
        UserError: for a bad folder, an unknown model, or an `out_dir` in use; no file is left behind.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError("finetune runs in one process; write a recipe and use torchrun -m seattn train for more")
    overrides = overrides or {}
    name = device or default_device()
    target = torch_device(name)
    run = out_dir or Path("runs") / f"{Path(model).name}-{data_dir.resolve().name}-s{seed}"
    if resume and not (run / RECIPE).exists():
        raise no_run(run)
    if not resume:
        start = start or find_start(model, checkpoint, pretrained=pretrained)
        if run.exists() and not run.is_dir():
            raise UserError(f"{run} is a file; give --out the path of a new folder")
        if run.exists() and any(run.iterdir()):
            raise UserError(f"{run} exists; give another --out, or --resume to continue the run in it")
        check_out(run, data_dir)
        exif = overrides.get("seattn.exif") is not False
        if labels is None and test_labels is not None:
            raise UserError(f"test labels {test_labels} need labels of the training images, too; give --labels")
        if labels is None:
            images = read_folder(data_dir, skip_bad=skip_bad, exif=exif)
        else:
            images = read_labelled(data_dir, labels, test_labels, skip_bad=skip_bad, exif=exif)
        recipe = _recipe_for(images, start, data_dir, on_gpu=target.type == "cuda")
        _write_start({**recipe, "seed": seed}, images, start, run, overrides)
    root = run / DATA if (run / DATA).is_dir() else data_dir
    try:
        row = train(run / RECIPE, root, run, resume=resume, device=name, skip_bad=skip_bad, overrides=overrides)
    except BaseException:
        if not (run / "last.pth.tar").exists():
            _remove(run)
        raise
    assert row is not None  # there is one process
    return FineTuned(run, row, root, name)


@dataclass(frozen=True)
class Start:
    """What a fine-tuning starts from.

    Args:
        arch: `arch` or `arch.tag` of timm's registry.
        origin: the origin of the weights, as the end of a sentence about the net.
        model_kwargs: the net's options, with its preprocessing where this is not the architecture's.
        input_size: C, H, W.
        label_names: those of the classifier, if they are known.
        pretrained: whether the registry has the weights.
        net: the net with its weights, where they are not in the registry.
        splits: the folder of links to the images of the run that trained the weights, if it made one.
    """

    arch: str
    origin: str
    model_kwargs: Mapping[str, Any]
    input_size: tuple[int, int, int]
    label_names: tuple[str, ...]
    pretrained: bool = False
    net: Any = None
    splits: Path | None = None


def find_splits_of_run(model: str, checkpoint: Path | None) -> Path | None:
    """The folder of links to the images that the run of `model` or `checkpoint` was trained on, if it made one."""
    if checkpoint is None and timm.is_model(model):
        return None
    return splits_of_run(checkpoint or Path(model.removeprefix(DIR_PREFIX)))


def images_of_nets(models: Sequence[str], checkpoint: Path | None, data_dir: Path, split: str) -> Path:
    """`images_of_runs` for the runs of the models or of `checkpoint`, with a warning where it is not `data_dir`."""
    made = [splits for model in models if (splits := find_splits_of_run(model, checkpoint)) is not None]
    images = images_of_runs(made, data_dir, split)
    if images != data_dir:
        message = "%s has no %s split; the splits that the run made of it are used: %s"
        _logger.warning(message, printable(data_dir), split, images)
    return images


def find_start(model: str, checkpoint: Path | None, *, pretrained: bool) -> Start:
    """The start of a fine-tuning; the arguments are those of `finetune`.

    Raises:
        UserError: if there is no such model, or its weights cannot be loaded.
    """
    if checkpoint is not None and not pretrained:
        raise UserError(f"the weights in {checkpoint} and a start from random weights exclude each other; give one")
    if checkpoint is None and Path(model).is_file():
        model, checkpoint = str(Path(model).parent), Path(model)  # a checkpoint in the folder of a run
    if timm.is_model(model) or not is_source(model):
        check_name(model)
        cfg = timm.get_pretrained_cfg(model)
        assert cfg is not None
        names = tuple(cfg.label_names or ())
        if checkpoint is None or not pretrained:
            if not pretrained:
                origin = "starts from random weights, as asked"
            elif cfg.has_weights:
                origin = "starts from its trained weights"
            else:
                origin = "has no trained weights: it starts from scratch, which needs more images and longer"
            return Start(model, origin, {}, cfg.input_size, names, pretrained=pretrained and bool(cfg.has_weights))
        net: Any = timm.create_model(model, pretrained=False)
        load_all_but_classifier(net, checkpoint)
        origin, splits = f"starts from the weights in {checkpoint}", find_splits_of_run(model, checkpoint)
        return Start(model, origin, {}, cfg.input_size, (), net=net, splits=splits)
    net = load_model(model, pretrained=pretrained and checkpoint is None, needs_classes=False)
    arch, model_kwargs = read_architecture(model)
    if checkpoint is not None:
        load_all_but_classifier(net, checkpoint)
    own = {key: tuple(value) if isinstance(value, list) else value for key, value in net.pretrained_cfg.items()}
    usual = timm.get_pretrained_cfg(arch)
    overlay = {key: own[key] for key in PREPROCESSING if key in own and own[key] != getattr(usual, key)}
    if overlay:
        model_kwargs = {**model_kwargs, "pretrained_cfg_overlay": overlay}
    return Start(
        arch,
        f"starts from the weights in {checkpoint or model}" if pretrained else "starts from random weights, as asked",
        model_kwargs,
        tuple(own["input_size"]),
        output_names(own.get("label_names"), net.num_classes),
        net=net if pretrained else None,
        splits=find_splits_of_run(model, checkpoint) if pretrained else None,
    )


def choose_recipe(
    model: str,
    *,
    counts: Sequence[int],
    class_names: Sequence[str],
    pretrained: bool,
    same_size: bool,
    on_gpu: bool,
    side: int | None = None,
) -> dict[str, Any]:
    """The recipe that suits a number of images.

    The accuracy depends more on the number of updates than on that of epochs, so fewer images are trained more epochs.

    Args:
        counts: the number of training images of each class.
        pretrained: whether to start from the model's trained weights.
        same_size: whether all images have the model's input size, as CIFAR's have for a CIFAR net.
        side: the side of that size; None is the architecture's.
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
        ours["crop_padding"] = max(1, (side or cfg.input_size[1]) // 8)
    else:
        recipe["scale"] = [0.5, 1.0]
    if max(counts) > _IMBALANCE * min(counts):
        ours["sampling"] = "balanced"
    return {**recipe, "seattn": ours}


def _power_of_two(value: int, low: int, high: int) -> int:
    """The largest power of two up to `value`, but at least `low` and at most `high`, which are powers of two."""
    return min(max(1 << max(0, value.bit_length() - 1), low), high)


def _recipe_for(images: UserImages, start: Start, data_dir: Path, *, on_gpu: bool) -> dict[str, Any]:
    """The recipe for the images in `data_dir`; logs what was found there and where the training starts."""
    names, counts = images.class_names, images.counts()
    total = sum(map(len, images.splits.values()))
    _logger.info("%d images in %d classes in %s: %s", total, len(names), data_dir, describe(names, counts))
    if images.skipped:
        _logger.info("left out, because reading failed: %s", counted(images.skipped, "image"))
    is_trained = start.pretrained or start.net is not None
    if not is_trained:
        classifier = ""
    elif start.label_names == names:
        classifier = ", classifier included: the classes are the same"
    else:
        classifier = f", with a new classifier of {len(names)} classes"
    _logger.info("%s %s%s", start.arch, start.origin, classifier)
    recipe = choose_recipe(
        start.arch,
        counts=counts,
        class_names=names,
        pretrained=is_trained,
        same_size=images.sizes == {start.input_size[1:]},
        on_gpu=on_gpu,
        side=start.input_size[1],
    )
    if not start.pretrained:
        recipe.update(pretrained=False, model_kwargs=dict(start.model_kwargs))
    recipe["seattn"]["dataset"] = printable(data_dir.resolve().name)
    return recipe


def describe(names: Sequence[str], counts: Sequence[int]) -> str:
    """The classes and the number of their images, in a line."""
    if len(names) <= _COUNTS_SHOWN:
        return ", ".join(f"{name} {count}" for name, count in zip(names, counts, strict=True))
    most, least = counts.index(max(counts)), counts.index(min(counts))
    return f"from {counts[least]} ({names[least]}) to {counts[most]} ({names[most]}) images each"


def _write_start(
    recipe: dict[str, Any], images: UserImages, start: Start, run: Path, overrides: Mapping[str, object]
) -> None:
    """Write the recipe, the weights to start from, and links to images that are not split yet; all or nothing."""
    if start.net is not None:
        recipe["initial_checkpoint"] = str(run / START)
    parse_recipe(replace_keys(recipe, overrides), source="recipe")  # before anything is written
    require_writable(run)
    try:
        if "test" not in images.splits or images.folders["train"] == images.folders["test"]:  # of tables
            kept = link_splits(images, run / DATA, recipe["seed"], earlier=start.splits)
            _logger.info("%s", _split_line(images, run / DATA, start.splits, kept))
        if start.net is not None:
            _write_weights(start, images.class_names, run / START)
        write_text(run / RECIPE, yaml.safe_dump(recipe, sort_keys=False))
    except BaseException:
        _remove(run)
        raise
    shown = {**recipe, **overrides}
    line = f"epochs {shown['epochs']}, batch size {shown['batch_size']}, learning rate {shown['lr']}"
    if shown.get("layer_decay"):
        line += f", falling by {shown['layer_decay']} a layer towards the first"
    if "sampling" in recipe["seattn"]:
        line += (
            f"; the largest class has over {_IMBALANCE} times the images of the smallest: all are drawn equally often"
        )
    _logger.info("recipe: %s", line)


def _write_weights(start: Start, class_names: Sequence[str], path: Path) -> None:
    """Write the weights to start from; the classifier only if its classes are those of the images, in their order."""
    state = {key: value.contiguous() for key, value in start.net.state_dict().items()}
    if start.label_names != tuple(class_names):
        for key in classifier_keys(start.net):
            del state[key]
    with atomic_path(path) as part:
        part.write_bytes(save(state))  # a full disk is an OSError here, and an error of its own in `save_file`


def _split_line(images: UserImages, root: Path, earlier: Path | None, kept: int) -> str:
    made = [name for name in ("validation", "test") if name not in images.splits]
    counts = {
        split: sum(len(files) for _, _, files in os.walk(root / split)) for split in ("train", "validation", "test")
    }
    listed = ", ".join(f"{split} {count}" for split, count in counts.items())
    line = f"split, with a tenth of each class for {' and for '.join(made)}: {listed}; as links in {root}"
    if earlier is not None:
        which = f"{counted(kept, 'image')} as" if kept else "no image was"
        line += f"; {which} in the splits of {earlier.parent}"
    return line


def _remove(run: Path) -> None:
    """Remove what `_write_start` and a training without a checkpoint wrote: links, not the images behind them."""
    shutil.rmtree(run / DATA, ignore_errors=True)
    for name in (RECIPE, START, ".lock"):
        (run / name).unlink(missing_ok=True)
    if run.is_dir() and not any(run.iterdir()):
        run.rmdir()
    if run.is_dir() and not any(run.iterdir()):
        run.rmdir()
