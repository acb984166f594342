"""The scores of several models together and of each alone, on the same images.

Shapes: M models, B images of a batch, N images in all, K classes.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seattn.core.errors import UserError
from seattn.data.folders.own_splits import check_unseen
from seattn.data.transforms import class_names
from seattn.evaluation.matching import match_classes
from seattn.evaluation.prediction import predict_scores
from seattn.evaluation.probabilities.combination import class_orders, combine
from seattn.evaluation.scoring import (
    Evaluation,
    image_batches,
    open_images,
    summarize,
    wilson_interval,
)
from seattn.evaluation.statistics import ImageDifference, paired_difference
from seattn.models._datasets import superclasses


@dataclass(frozen=True)
class Member:
    """A model alone: its accuracy with the 95 % Wilson interval; `gain` is the accuracy of all together minus it."""

    model: str
    top1: float
    top1_low: float
    top1_high: float
    gain: ImageDifference


@dataclass(frozen=True)
class EnsembleEvaluation:
    """The scores of several models `together`, and of each alone; `ensemble` is "average" or "vote"."""

    ensemble: str
    together: Evaluation
    members: tuple[Member, ...]

    def to_dict(self) -> dict[str, Any]:
        """The scores as plain values for JSON: those of all together, and `members`."""
        members = [
            {**asdict(member), "gain": {**asdict(member.gain), "change": member.gain.change}} for member in self.members
        ]
        together = self.together.to_dict()
        del together["temperature"]  # each member has its own
        return {"ensemble": self.ensemble, "members": members, **together}


def evaluate_ensemble(
    models: Mapping[str, nn.Module],
    data_dir: str | Path,
    split: str = "test",
    ensemble: str = "average",
    *,
    batch_size: int = 256,
    workers: int = 2,
    exif: bool = True,
    class_map: Path | None = None,
    labels: Path | None = None,
    tta: str = "none",
    progress: bool = False,
) -> EnsembleEvaluation:
    """Evaluate two or more models, by their names, together; each with timm's transform for it.

    One batch of each model is in memory at a time, and the combined scores of all images. The other arguments are those
    of `evaluate`.

    Raises:
        UserError: as `evaluate`; or if there is one model only, or the models have different classes.
    """
    if len(models) < 2:
        raise UserError(f"an ensemble needs two models or more, got {len(models)}")
    orders, nets = class_orders(models), list(models.values())
    images = open_images(Path(data_dir), split, exif=exif, labels=labels)
    for net in nets:
        check_unseen(net, images, split)
    outputs, names = match_classes(images.class_names, nets[0], class_map)
    true = torch.tensor(outputs)[images.labels]  # (N,)
    streams = [
        image_batches(
            net,
            images,
            batch_size=batch_size,
            workers=workers,
            progress="evaluating" if progress and net is nets[0] else "",
        )
        for net in nets
    ]
    combined, predicted = [], []
    for batches in zip(*streams, strict=True):  # M of (B, C, H, W), each in its model's size
        scores = [
            predict_scores(net, [x], tta=tta)[:, order] for net, x, order in zip(nets, batches, orders, strict=True)
        ]
        combined.append(combine(scores, ensemble))  # (B, K)
        predicted.append(torch.stack([each.argmax(1) for each in scores]))  # (M, B)
    all_scores = torch.cat(combined)  # (N, K)
    right = (all_scores.argmax(1) == true).numpy()  # (N,)
    members = []
    for name, right_alone in zip(models, (torch.cat(predicted, 1) == true).numpy(), strict=True):
        correct = int(right_alone.sum())
        low, high = wilson_interval(correct, len(true))
        gain = paired_difference(right_alone[None], right[None])
        members.append(Member(name, correct / len(true), low, high, gain))
    together = replace(summarize(all_scores, true, names), groups=superclasses(class_names(nets[0])))
    return EnsembleEvaluation(ensemble, together, tuple(members))
