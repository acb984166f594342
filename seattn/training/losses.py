"""Losses of training: cross entropy, binary cross entropy and focal loss, with class weights, and distillation.

Shapes: B images, K classes; targets (B,) int64, or (B, K) where mixup or cutmix made them.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight
from timm.loss import BinaryCrossEntropy
from torch import Tensor, nn

from seattn.core.errors import UserError
from seattn.core.recipe import Recipe

_BETA = 0.999  # of the effective number of images


class FocalLoss(nn.Module):
    """Mean over the batch of -sum_k t_k w_k (1 - p_k)^gamma log p_k, p = softmax(logits); gamma 0 is cross entropy.

    Lin et al., ICCV 2017, https://arxiv.org/abs/1708.02002, equation 4, over all classes.

    Args:
        gamma: the exponent, 0 or more.
        weight: (K), of the classes; None for 1.
        smoothing: share of each target that is spread over all classes.
    """

    weight: Tensor | None

    def __init__(self, gamma: float, *, weight: Tensor | None = None, smoothing: float = 0.0) -> None:
        super().__init__()
        self.gamma, self.smoothing = gamma, smoothing
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        log_p = F.log_softmax(logits.float(), 1)  # (B, K)
        if target.ndim == 1:
            target = F.one_hot(target, logits.shape[1]).to(log_p.dtype)  # (B, K)
            target = target * (1 - self.smoothing) + self.smoothing / logits.shape[1]
        terms = target * (1 - log_p.exp()) ** self.gamma * -log_p  # (B, K)
        if self.weight is not None:
            terms = terms * self.weight
        return terms.sum(1).mean()


def class_weights(kind: str | Mapping[str, float], labels: Tensor, class_names: Sequence[str]) -> Tensor | None:
    """(K) weights by what a recipe says, or None for kind "none".

    From the training labels (N,), "balanced": N / (K n_k); "effective": (1 - beta) / (1 - beta^n_k), scaled to a mean
    of 1 (Cui et al., CVPR 2019). A mapping names classes and their weights; the others' is 1.

    Raises:
        UserError: if it names a class that is not there.
    """
    if kind == "none":
        return None
    classes = len(class_names)
    if isinstance(kind, Mapping):
        given = torch.ones(classes)
        for name, weight in kind.items():
            if name not in class_names:
                near = difflib.get_close_matches(name, class_names, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"the classes: {', '.join(class_names)}"
                raise UserError(f"seattn.class_weights names {name!r}, which is no class of the data; {hint}")
            given[class_names.index(name)] = weight
        return given
    counts = torch.bincount(labels, minlength=classes)  # (K)
    if kind == "balanced":
        present = np.flatnonzero(counts.numpy())
        weights = torch.ones(classes, dtype=torch.float64)
        weights[present] = torch.from_numpy(compute_class_weight("balanced", classes=present, y=labels.numpy()))
        return weights.float()
    effective = (1 - _BETA) / (1 - _BETA ** counts.clamp(min=1).double())
    return (effective / effective.mean()).float()


class TrainingLoss(nn.Module):
    """loss(logits (B, K), target, x (B, 3, H, W)): the criterion's, and a teacher's where there is one."""

    def __init__(self, criterion: nn.Module, teacher: "Teacher | None") -> None:
        super().__init__()
        self.criterion, self.teacher = criterion, teacher

    def forward(self, logits: Tensor, target: Tensor, x: Tensor) -> Tensor:
        task: Tensor = self.criterion(logits, target)
        return task if self.teacher is None else self.teacher.loss(logits, task, x)


def make_loss(
    recipe: Recipe, labels: Tensor, class_names: Sequence[str], teacher: "Teacher | None" = None
) -> TrainingLoss:
    """All that the recipe says of the loss; `labels` (N,) are those of the training images."""
    return TrainingLoss(make_criterion(recipe, labels, class_names), teacher)


def make_criterion(recipe: Recipe, labels: Tensor, class_names: Sequence[str]) -> nn.Module:
    """The recipe's loss of logits (B, K) and targets."""
    ours = recipe.seattn
    weight = class_weights(ours.class_weights, labels, class_names)
    mixes = recipe.mixup > 0 or recipe.cutmix > 0 or recipe.cutmix_minmax is not None
    smoothing = 0.0 if mixes else recipe.smoothing  # timm's Mixup smooths the targets that it makes
    if ours.loss == "focal":
        return FocalLoss(ours.focal_gamma, weight=weight, smoothing=smoothing)
    if recipe.bce_loss:
        return BinaryCrossEntropy(
            smoothing=smoothing,
            target_threshold=recipe.bce_target_thresh,
            weight=weight,
            sum_classes=recipe.bce_sum,
        )
    return nn.CrossEntropyLoss(weight=weight, label_smoothing=smoothing)


class Teacher(nn.Module):
    """A trained net whose softened outputs a student learns: T^2 KL(softmax(z_t / T) || softmax(z_s / T)).

    Hinton et al., 2015, https://arxiv.org/abs/1503.02531, section 2; a (B, 3, H, W) normalised for the student is
    normalised again for the teacher. The two weights are read as timm reads them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, recipe: Recipe, student_cfg: Mapping[str, Any]) -> None:
        super().__init__()
        self.net = net.eval().requires_grad_(False)
        self.temperature = recipe.kd_temperature
        task, distill = recipe.task_loss_weight, recipe.distill_loss_weight
        self.task_weight = 1.0 if task is None else task
        self.weight = distill if distill is not None else 1.0 if task is None else 1 - task
        cfg: Any = self.net.pretrained_cfg
        mean, std = (torch.tensor([c[k] for c in (student_cfg, cfg)]) for k in ("mean", "std"))  # (2, 3) each
        # theirs(x) = (x * std_student + mean_student - mean_teacher) / std_teacher
        self.register_buffer("std", (std[0] / std[1]).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("mean", ((mean[0] - mean[1]) / std[1]).view(1, -1, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> "Teacher":
        """The teacher stays in eval mode."""
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        """Its logits (B, K) for images as the student sees them."""
        with torch.no_grad():
            logits: Tensor = self.net(x * self.std + self.mean)
        return logits

    def loss(self, logits: Tensor, task_loss: Tensor, x: Tensor) -> Tensor:
        """The student's whole loss."""
        t = self.temperature
        log_student = F.log_softmax(logits.float() / t, 1)
        log_teacher = F.log_softmax(self(x).float() / t, 1)
        kl = F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * t * t
        return self.task_weight * task_loss + self.weight * kl
