"""Export a net to a file: written, read again, compared with PyTorch, and only then put in its place.

Shapes: B images, C channels, H x W pixels, N images in all, K classes.
"""

import logging
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seattn.core.errors import UserError, counted, first_line
from seattn.core.files import not_found, require_replaceable, require_writable_file, size, whole_files
from seattn.core.progress import progress_bar
from seattn.data.folders.files import list_images
from seattn.data.folders.own_splits import check_unseen
from seattn.data.folders.splits import find_splits, has_split
from seattn.data.images import FileSet, ImageSet, cifar_folder
from seattn.data.loader import FolderEval
from seattn.data.samples import load_sample
from seattn.data.transforms import class_names, data_config, image_mode
from seattn.deploy.formats import Format, find_format
from seattn.deploy.latency import milliseconds
from seattn.deploy.metadata import describe
from seattn.deploy.runtime import Run
from seattn.evaluation.matching import match_classes
from seattn.evaluation.scoring import open_images
from seattn.models.load import DIR_PREFIX, HUB_PREFIX, load_model
from seattn.ops import set_kernels
from seattn.training.finetuning import images_of_nets

# Relative to the largest logit. Runtimes add in another order than PyTorch, which gives differences near 1e-6; half
# precision or TF32 would give 1e-3.
TOLERANCE = 1e-4
MOST_IMAGES = 1000
MOST_CALIBRATION = 512
MOST_LOST = 0.05  # of the accuracy, by quantisation to 8 bits
_BATCH = 50
_logger = logging.getLogger("seattn")


@dataclass(frozen=True)
class Export:
    """What was written, and how its outputs compare with PyTorch's.

    Args:
        bytes: the size of all files together.
        difference: the largest difference of a logit, relative to the largest logit; None where this machine cannot
            compute the file, which then was not compared.
        images: the number of labelled images that were compared. Random inputs are compared too, except with 8 bits.
        float_bytes: the size of all files before quantisation to 8 bits; None without quantisation.
        top1_before, top1_after: the accuracy on the images in PyTorch and in the file; None without images.
        milliseconds_before, milliseconds_after: the median time of one image in PyTorch (eager) and in the file; None
            where this machine cannot compute the file.
    """

    files: tuple[str, ...]
    bytes: int
    difference: float | None
    images: int
    top1_before: float | None
    top1_after: float | None
    milliseconds_before: float | None
    milliseconds_after: float | None
    float_bytes: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Labelled:
    """Images, and the index of the net's output for each, (N,)."""

    images: FileSet | ImageSet
    outputs: Tensor


def export_model(
    spec: str,
    to: str,
    out: Path | None = None,
    *,
    checkpoint: Path | None = None,
    data_dir: Path | None = None,
    split: str = "test",
    class_map: Path | None = None,
    int8: bool = False,
    calibrate: Path | None = None,
    progress: bool = False,
) -> Export:
    """Export a net and check that the file computes what the net computes.

    A file takes any number of images at a time, in ExecuTorch and Core ML 1 to 64. A Core ML file, which iOS and macOS
    compute, is checked on macOS only.

    Args:
        spec, checkpoint: as for `seattn.models.load.load_model`.
        to: "onnx", "openvino", "torch", "torchscript", "executorch" or "coreml".
        out: the file; by default the net's name in the current folder. Some formats write a second file beside it. The
            format "coreml" is a folder, which replaces one that an earlier export wrote.
        data_dir, split, class_map: labelled images for the check, as for `seattn.evaluation.evaluate`; at most 1,000
            of them are drawn. If the net's run made splits of `data_dir`, these are used. Without `data_dir`, random
            inputs are compared, and for nets of CIFAR-10 the 1,000 images of the package.
        int8: quantise weights and activations to 8 bits; for "onnx", "openvino" and "torch", and with `data_dir`.
        calibrate: a folder of images that show the range of each activation; by default the train split of `data_dir`.
            At most 512 of them are drawn, none of which is scored.
        progress: show progress bars on stderr.

    Raises:
        UserError: if the format is unknown or not installed, the net cannot be written in it, the outputs differ by
            more than `TOLERANCE`, or 8 bits cost more than `MOST_LOST` of accuracy. No file is written then.
    """
    _check_int8(int8, data_dir, calibrate)
    if data_dir is None and (class_map is not None or split != "test"):
        raise UserError("--split and --class-map are for labelled images; give --data-dir, too")
    target = find_format(to, int8=int8)
    out = _checked_path(out or Path(f"{_name(spec)}{'.int8' if int8 else ''}{target.suffix}"), to, target)
    if data_dir is not None and not target.runs_here:
        raise UserError(f"a file of the format {to} can be compared with PyTorch on macOS only: omit --data-dir")
    if data_dir is not None:
        data_dir = images_of_nets([spec], checkpoint, data_dir, split)
    pool = _calibration_images(data_dir, calibrate) if int8 and data_dir is not None else None
    net = load_model(spec, checkpoint=checkpoint)
    image_mode(net)  # refuses a net whose inputs no image file gives
    labelled = None
    if target.runs_here:
        labelled = _packaged_images(net) if data_dir is None else _draw(net, data_dir, split, class_map)
    calibration = (
        None if pool is None or labelled is None else _at_most(_without(pool, labelled.images), MOST_CALIBRATION)
    )
    with _quiet_exporters(), whole_files(out.parent) as folder:
        file = folder / out.name
        # When torch.export fails, it prints the program so far to stderr.
        with _explain_errors(spec, to), redirect_stderr(StringIO()), set_kernels("reference"), torch.no_grad():
            target.write(net, _random_inputs(net)[0], file, describe(net, _name(spec)))
        differences = []
        if target.runs_here:
            run, _ = target.load(file)
            differences.append(_difference(*_logits(net, run, _random_inputs(net))))
            _check_difference(differences[0], spec, to)
        float_bytes = None
        if calibration is not None and target.quantize is not None:
            float_bytes = sum(map(size, folder.iterdir()))
            with _explain_errors(spec, f"{to} in 8 bits"):
                target.quantize(file, _inputs(net, calibration, "calibrating" if progress else ""))
            run, _ = target.load(file)
            differences.clear()  # of the float file; on random inputs 8 bits differ more than on images
        before = after = None
        if labelled is not None:
            pair = _logits(net, run, _inputs(net, labelled.images, "comparing" if progress else ""))
            differences.append(_difference(*pair))
            before, after = (_accuracy(logits, labelled.outputs) for logits in pair)
            if int8:
                _check_loss(before, after, len(labelled.outputs))
            else:
                _check_difference(differences[-1], spec, to)
        times: list[float] = []
        if target.runs_here:
            times = milliseconds((net, run), _random_inputs(net)[1])
        sizes = {out.parent / path.name: size(path) for path in sorted(folder.iterdir())}
    return Export(
        files=tuple(map(str, sizes)),
        bytes=sum(sizes.values()),
        difference=max(differences, default=None),
        images=0 if labelled is None else len(labelled.outputs),
        top1_before=before,
        top1_after=after,
        milliseconds_before=times[0] if times else None,
        milliseconds_after=times[1] if times else None,
        float_bytes=float_bytes,
    )


def _check_int8(int8: bool, data_dir: Path | None, calibrate: Path | None) -> None:
    if calibrate is not None and not int8:
        raise UserError("--calibrate is for --int8; give both or none")
    if int8 and data_dir is None:
        raise UserError("--int8 needs labelled images, to measure the accuracy that it costs: give --data-dir DIR")


def _check_difference(difference: float, spec: str, to: str) -> None:
    if not difference <= TOLERANCE:  # also if it is NaN
        raise UserError(
            f"{spec} in the format {to} differs from PyTorch by {difference:.1g} of the largest logit, "
            f"{TOLERANCE:g} is allowed; no file was written; try another format"
        )


def _check_loss(before: float, after: float, images: int) -> None:
    if round(before - after, 9) > MOST_LOST:
        raise UserError(
            f"the 8-bit net has {after:.1%} accuracy on {counted(images, 'image')}, PyTorch has {before:.1%}: over "
            f"{100 * MOST_LOST:g} points less; no file was written; give --calibrate DIR with images like those that "
            "the net will see, or export without --int8"
        )


def _calibration_images(data_dir: Path, calibrate: Path | None) -> FileSet | ImageSet:
    """The images of `calibrate`, at any depth and without labels, or of the train split."""
    if calibrate is not None and not calibrate.is_dir():
        raise UserError(f"{not_found('folder', calibrate)}; --calibrate takes a folder of images")
    folder = calibrate or data_dir
    images: FileSet | ImageSet
    if calibrate is not None and cifar_folder(calibrate) is None:
        paths = tuple(list_images(calibrate))
        images = FileSet(paths, torch.zeros(len(paths), dtype=torch.int64), ("any",))
    elif has_split(folder, "train"):
        images = open_images(folder, "train")
    else:
        find_splits(data_dir)  # refuses what is no folder
        raise UserError(
            f"{data_dir} has no train split to calibrate the 8-bit net on; give --calibrate DIR with images"
        )
    return images


def _without(images: FileSet | ImageSet, scored: FileSet | ImageSet) -> FileSet | ImageSet:
    """The images that are not scored: by files, or in CIFAR's files by their pixels.

    Raises:
        UserError: if there is no other image.
    """
    known = set(map(_identity, _each(scored)))
    kept = [i for i, image in enumerate(_each(images)) if _identity(image) not in known]
    if not kept:
        raise UserError(
            f"the {counted(len(images), 'image')} for calibration are all among those that are scored; give "
            "--calibrate DIR with other images"
        )
    if len(kept) < len(images):
        _logger.warning("%d images for calibration are among the scored ones and are left out", len(images) - len(kept))
    return images.subset(torch.tensor(kept))


def _each(images: FileSet | ImageSet) -> Iterable[Path | Tensor]:
    return images.paths if isinstance(images, FileSet) else images.images


def _identity(image: Path | Tensor) -> object:
    return image.numpy().tobytes() if isinstance(image, Tensor) else os.path.realpath(image)


@contextmanager
def _quiet_exporters() -> Iterator[None]:
    """A `with` block without the warnings of exporters, which are for authors of nets; errors are still raised."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _name(spec: str) -> str:
    """The net's name in the file: the last part of a name, a folder or a repository."""
    plain = spec.removeprefix(HUB_PREFIX).removeprefix(DIR_PREFIX)
    return Path(plain).resolve().name


def _checked_path(out: Path, to: str, target: Format) -> Path:
    if out.suffix != target.suffix:
        raise UserError(f"the format {to} has files called NAME{target.suffix}, got {out}")
    if target.second is not None and (second := target.second(out)).exists() and not out.exists():
        raise UserError(f"{second} exists, which is not of an earlier export to {out}; move it, or give another --out")
    if target.is_ours is None:
        require_writable_file(out)
    else:
        require_replaceable(out, target.is_ours)
    return out


def _draw(net: nn.Module, data_dir: Path, split: str, class_map: Path | None) -> _Labelled:
    """At most `MOST_IMAGES` images of the split: the same ones each time."""
    images = open_images(data_dir, split)
    check_unseen(net, images, split)
    outputs, _ = match_classes(images.class_names, net, class_map)
    drawn = _at_most(images, MOST_IMAGES)
    return _Labelled(drawn, torch.tensor(outputs)[drawn.labels])


def _packaged_images(net: nn.Module) -> _Labelled | None:
    """The 1,000 test images of CIFAR-10 in the package; None for a net with other classes or another input size."""
    sample = load_sample("cifar10")
    names = class_names(net)
    if set(names) != set(sample.class_names) or data_config(net)["input_size"] != (3, 32, 32):
        return None
    labels = torch.from_numpy(sample.labels)
    outputs = torch.tensor([names.index(name) for name in sample.class_names])
    return _Labelled(ImageSet(torch.from_numpy(sample.images), labels, sample.class_names), outputs[labels])


def _at_most(images: FileSet | ImageSet, most: int) -> FileSet | ImageSet:
    """At most `most` images, by a fixed seed."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images.subset(order[:most])


@contextmanager
def _explain_errors(spec: str, to: str) -> Iterator[None]:
    """Turn each error of an exporter into a UserError of one line: exporters raise errors of many types."""
    try:
        yield
    except (OSError, UserError):
        raise
    except Exception as error:
        if _is_interrupt(error):
            raise KeyboardInterrupt from error
        raise UserError(
            f"{spec} cannot be written in the format {to}: {first_line(error)}; try another format"
        ) from error


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether an error of an exporter came from Ctrl-C, which torch's exporter to ONNX turns into its own."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _random_inputs(net: nn.Module) -> list[Tensor]:
    """The same four random images each time, (4, C, H, W), and the first of them alone."""
    x = torch.randn(4, *data_config(net)["input_size"], generator=torch.Generator().manual_seed(0))
    return [x, x[:1]]


def _inputs(net: nn.Module, images: FileSet | ImageSet, progress: str = "") -> Iterable[Tensor]:
    """The images as the net takes them, (B, C, H, W)."""
    batches = FolderEval(images, _BATCH, 0, data_config(net), torch.device("cpu")).in_order()
    return progress_bar(batches, progress, total=-(-len(images) // _BATCH), unit="batch", shown=bool(progress))


@torch.inference_mode()
def _logits(net: nn.Module, run: Run, batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """The logits (N, K) of the net and of the file."""
    before, after = [], []
    for x in batches:
        before.append(net(x))
        after.append(run(x))
    return torch.cat(before), torch.cat(after)


def _difference(before: Tensor, after: Tensor) -> float:
    return float((before - after).abs().max() / before.abs().max())


def _accuracy(logits: Tensor, outputs: Tensor) -> float:
    return float((logits.argmax(1) == outputs).double().mean())
