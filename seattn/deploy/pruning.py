"""Structured pruning: a net with fewer channels, fine-tuned, which timm builds again from its config.json.

Layers whose channels depend on each other, such as the convolutions that are added to one residual stream, form a
group. A channel is removed from all layers of its group at once; the channels whose weights have the smallest norm are
removed. Fang et al., DepGraph, CVPR 2023, https://arxiv.org/abs/2301.12900, by their package torch-pruning.
Shapes: B images, C channels, H x W pixels.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import split_model_name_tag
from torch import nn

from seattn.blocks.narrowing import find_widths
from seattn.core.errors import UserError, first_line, shorten
from seattn.core.files import write_text
from seattn.data.folders.classes import class_folders
from seattn.data.folders.splits import find_splits, require_folders
from seattn.data.transforms import class_names, data_config
from seattn.deploy.latency import milliseconds
from seattn.evaluation.profile.costs import parameters_and_macs
from seattn.evaluation.scoring import score_images
from seattn.models.listing import our_models
from seattn.models.load import load_model
from seattn.training.finetuning import FineTuned, find_splits_of_run, find_start, finetune, tested_files

RESULT = "pruning.json"
WIDTHS = "widths"  # the option of our nets that gives the sizes of layers


@dataclass(frozen=True)
class Size:
    """What a net costs and what it scores.

    Args:
        macs: multiplications with additions for one image.
        top1: the share of the test images that it classifies correctly, from 0 to 1.
        milliseconds: the median time of one image over 30 calls, which alternate between the two nets.
    """

    parameters: int
    macs: int
    top1: float
    milliseconds: float


@dataclass(frozen=True)
class Pruned:
    """A pruned and fine-tuned net beside the net that it was made from.

    Args:
        run: the folder of the run, which timm loads as `local-dir:<run>`.
        ratio: the share of channels that was removed.
        images: the number of test images.
    """

    run: str
    model: str
    ratio: float
    device: str
    images: int
    before: Size
    after: Size

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values for JSON."""
        return asdict(self)


def prune(
    model: str,
    data_dir: Path,
    out_dir: Path | None = None,
    *,
    ratio: float,
    checkpoint: Path | None = None,
    device: str | None = None,
    seed: int = 0,
    skip_bad: bool = False,
    overrides: Mapping[str, object] | None = None,
    progress: bool = False,
) -> Pruned:
    """Remove channels of a trained net of this package, fine-tune the smaller net, and compare both.

    The folder of the run is like that of `finetune`. Its config.json has the option `widths`, with which timm builds
    the smaller net; pruning.json has the comparison. The recipe is the one that `finetune` chooses for the number of
    images; in the recipe that trained the weights, the learning rate is for random weights, which is too high here.

    Args:
        model, checkpoint: as for `seattn.models.load.load_model`.
        data_dir, device, seed, skip_bad: as for `finetune`; the classes are those of the net.
        out_dir: the folder for the run's files; `runs/<model>-pruned-<ratio>-<folder>-s<seed>` by default.
        ratio: the share of channels to remove in each layer but the classifier, above 0 and below 1, rounded up to
            whole channels. A layer keeps all of its channels if none would be left, or if an ECA or a CBAM depends on
            them.
        overrides: recipe keys and their values, in place of those that `finetune` chooses.
        progress: show progress bars on stderr.

    Raises:
        UserError: for a wrong ratio, a net that is not of this package or has no weights, other classes, or anything
            that `finetune` refuses; no file is left behind.
    """
    if find_spec("torch_pruning") is None:
        raise UserError('seattn prune needs torch-pruning, not installed here: pip install "seattn[deploy]"')
    if not 0 < ratio < 1:
        raise UserError(f"--ratio is the share of channels to remove, above 0 and below 1, got {ratio:g}")
    net = load_model(model, checkpoint=checkpoint)
    start = find_start(model, None, pretrained=False)
    arch, _ = split_model_name_tag(start.arch)
    if arch not in our_models():
        raise UserError(
            f"seattn prune is for the nets of this package, which timm can build with other widths; {arch} is not one "
            "of them; seattn list shows them"
        )
    _check_classes(net, model, data_dir)
    full = {key: value for key, value in start.model_kwargs.items() if key != WIDTHS}
    widths = _remove_channels(net, arch, full, ratio)
    if widths == start.model_kwargs.get(WIDTHS, {}):
        raise UserError(f"--ratio {ratio:g} would leave no channel in a layer of {model}: give a smaller one")
    run = out_dir or Path("runs") / f"{Path(model).name}-pruned-{ratio:g}-{data_dir.resolve().name}-s{seed}"
    if run.is_dir() and any(run.iterdir()):
        raise UserError(f"{run} exists; give another --out")
    done = finetune(
        model,
        data_dir,
        run,
        device=device,
        seed=seed,
        skip_bad=skip_bad,
        # Channels are missing in all layers, the first ones included: all learn at one rate.
        overrides={"layer_decay": None, **(overrides or {})},
        start=replace(
            start,
            origin=f"starts from the weights in {checkpoint or model} without {ratio:.0%} of the channels",
            model_kwargs={**full, WIDTHS: widths},
            net=net,
            splits=find_splits_of_run(model, checkpoint),
        ),
    )
    pruned = _compare(model, checkpoint, done, ratio, skip_bad=skip_bad, progress=progress)
    write_text(done.run / RESULT, json.dumps(pruned.to_dict(), indent=2) + "\n")
    return pruned


def _check_classes(net: nn.Module, model: str, data_dir: Path) -> None:
    require_folders(data_dir)
    names, known = class_folders(find_splits(data_dir).get("train", data_dir)), class_names(net)
    if names != known:
        raise UserError(
            f"the class folders in {data_dir} ({shorten(names) or 'none'}) are not the classes of {model} "
            f"({shorten(known)}); first train it on them: seattn finetune {model} --data-dir {data_dir}"
        )


def _remove_channels(net: nn.Module, arch: str, options: Mapping[str, Any], ratio: float) -> dict[str, list[int]]:
    """Prune the net in place; returns the `widths` with which `arch` and these options build it again.

    Raises:
        UserError: if timm cannot build the pruned net again.
    """
    import torch_pruning

    x = torch.randn(2, *data_config(net)["input_size"], generator=torch.Generator().manual_seed(0))
    classifier: Any = net.get_classifier()  # type: ignore[operator]
    options = {**options, "num_classes": net.num_classes}
    try:
        torch_pruning.pruner.BasePruner(
            net,
            x,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=ratio,
            ignored_layers=[classifier],
        ).step()
        with torch.device("meta"):
            full = timm.create_model(arch, **options)
        widths = find_widths(net, full)
        again = timm.create_model(arch, **options, widths=widths).eval()
        again.load_state_dict(net.state_dict())
        with torch.inference_mode():
            torch.testing.assert_close(again(x), net(x))
    except (AssertionError, KeyError, RuntimeError, ValueError) as error:
        raise UserError(f"{arch} cannot be pruned by {ratio:g}: {first_line(error)}; try another ratio") from error
    return widths


def _compare(
    model: str, checkpoint: Path | None, done: FineTuned, ratio: float, *, skip_bad: bool, progress: bool
) -> Pruned:
    nets = (load_model(model, checkpoint=checkpoint, device=done.device), load_model(str(done.run), device=done.device))
    images = tested_files(done.run, done.images, skip_bad=skip_bad)
    scores = score_images(nets[0], images, progress="scoring the net before" if progress else "").evaluation
    x = torch.zeros(1, *data_config(nets[0])["input_size"], device=done.device)
    before, after = (
        Size(*parameters_and_macs(net), top1, time)
        for net, top1, time in zip(nets, (scores.top1, done.row.top1), milliseconds(nets, x), strict=True)
    )
    return Pruned(
        run=str(done.run),
        model=model,
        ratio=ratio,
        device=done.device,
        images=scores.n,
        before=before,
        after=after,
    )
