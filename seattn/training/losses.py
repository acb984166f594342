"""Losses of training: cross entropy, binary cross entropy and focal loss, with class weights, of a whole batch or of
its hardest images, and distillation.

Shapes: B images, K classes; targets (B,) int64, or (B, K) where mixup or cutmix made them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.loss import BinaryCrossEntropy
from torch import Tensor, nn

from seattn.core.errors import UserError, did_you_mean
from seattn.core.recipe import Recipe
from seattn.data.transforms import data_config

_BETA = 0.999  # beta in the effective number of images


class FocalLoss(nn.Module):
    """Mean over the batch of -sum_k t_k w_k (1 - p_k)^gamma log p_k, p = softmax(logits); gamma 0 is cross entropy.

    Lin et al., ICCV 2017, https://arxiv.org/abs/1708.02002, equation 4, over all classes.

    Args:
        gamma: the exponent, 0 or more.
        weight: (K), the weights of the classes; None: every weight is 1.
        smoothing: the share of each target that is spread over all classes.
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


class HardestLoss(nn.Module):
    """The criterion over the part of a batch, at least one image, whose cross entropy is largest.

    Online hard example mining: Shrivastava et al., CVPR 2016, https://arxiv.org/abs/1604.03540, section 4, for whole
    images.

    Args:
        criterion: the mean loss of logits (B, K) and a target.
        share: the part of the batch, over 0 and up to 1.
    """

    def __init__(self, criterion: nn.Module, share: float) -> None:
        super().__init__()
        self.criterion, self.share = criterion, share

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        losses = F.cross_entropy(logits.detach().float(), target, reduction="none")  # (B)
        chosen = losses.topk(max(1, round(self.share * len(losses)))).indices
        loss: Tensor = self.criterion(logits[chosen], target[chosen])
        return loss


def class_weights(kind: str | Mapping[str, float], labels: Tensor, class_names: Sequence[str]) -> Tensor | None:
    """The weight of each class (K), or None for kind "none".

    From the training labels (N,) of which n_k are of class k: "balanced" is N / (K n_k); "effective" is
    (1 - beta) / (1 - beta^n_k), scaled to a mean of 1 (Cui et al., CVPR 2019). A mapping gives the weights of the
    classes that it names; all others have 1.

    Raises:
        UserError: if the mapping names an unknown class.
    """
    if kind == "none":
        return None
    if isinstance(kind, Mapping):
        for name in kind:
            if name not in class_names:
                hint = did_you_mean(name, class_names)
                raise UserError(f"seattn.class_weights names {name!r}, which is not a class of the data; {hint}")
        return torch.tensor([kind.get(name, 1.0) for name in class_names], dtype=torch.float32)
    counts = torch.bincount(labels, minlength=len(class_names)).double()  # (K)
    if kind == "balanced":
        weights = len(labels) / (counts.count_nonzero() * counts)
        return weights.where(counts > 0, 1).float()
    effective = (1 - _BETA) / (1 - _BETA ** counts.clamp(min=1))
    return (effective / effective.mean()).float()


class TrainingLoss(nn.Module):
    """The loss of logits (B, K), a target and x (B, C, H, W): by the criterion, and by the teacher if there is one."""

    def __init__(self, criterion: nn.Module, teacher: "Teacher | None") -> None:
        super().__init__()
        self.criterion, self.teacher = criterion, teacher

    def forward(self, logits: Tensor, target: Tensor, x: Tensor) -> Tensor:
        loss = self.criterion(logits, target)
        return loss if self.teacher is None else self.teacher.loss(logits, loss, x)


def make_criterion(recipe: Recipe, labels: Tensor, class_names: Sequence[str]) -> nn.Module:
    """The recipe's loss of logits (B, K) and a target; `labels` (N,) are those of the training images."""
    criterion, share = _criterion(recipe, labels, class_names), recipe.seattn.hardest
    return criterion if share == 1 else HardestLoss(criterion, share)


def _criterion(recipe: Recipe, labels: Tensor, class_names: Sequence[str]) -> nn.Module:
    ours = recipe.seattn
    weight = class_weights(ours.class_weights, labels, class_names)
    smoothing = 0.0 if recipe.mixes else recipe.smoothing  # timm's Mixup smooths the targets that it makes
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

    Hinton et al., 2015, https://arxiv.org/abs/1503.02531, section 2. Images x (B, C, H, W) that are normalised for the
    student are normalised again for the teacher. The weights of the two losses mean the same as in timm.

    Args:
        outputs: the number of the teacher's output for each output of the student; None: they have the same order.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self, net: nn.Module, recipe: Recipe, student_cfg: Mapping[str, Any], outputs: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.outputs = outputs
        self.net = net.eval().requires_grad_(False)
        self.temperature = recipe.kd_temperature
        task, distill = recipe.task_loss_weight, recipe.distill_loss_weight
        self.task_weight = 1.0 if task is None else task
        self.weight = distill if distill is not None else 1.0 if task is None else 1 - task
        cfg = data_config(self.net)
        mean, std = (torch.tensor([student_cfg[key], cfg[key]]) for key in ("mean", "std"))  # (2, C): student, teacher
        # The teacher's input is (x * std_student + mean_student - mean_teacher) / std_teacher.
        self.register_buffer("scale", (std[0] / std[1]).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("shift", ((mean[0] - mean[1]) / std[1]).view(1, -1, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> "Teacher":
        """Leave the teacher in eval mode, for every value of `mode`."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """The teacher's logits (B, K) for images that are normalised for the student."""
        logits: Tensor = self.net(x * self.scale + self.shift)
        return logits if self.outputs is None else logits[:, list(self.outputs)]

    def loss(self, logits: Tensor, task_loss: Tensor, x: Tensor) -> Tensor:
        """The student's whole loss."""
        t = self.temperature
        log_student = F.log_softmax(logits.float() / t, 1)
        log_teacher = F.log_softmax(self(x).float() / t, 1)
        kl = F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * t * t
        return self.task_weight * task_loss + self.weight * kl
