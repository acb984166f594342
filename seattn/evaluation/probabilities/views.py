"""Test-time augmentation: several views of the images, over which probabilities are averaged.

Shapes: B images, C channels, H x W pixels, K classes.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import nn

from seattn.core.errors import UserError

Tta = Literal["none", "flip", "crops"]
View = Callable[[torch.Tensor], torch.Tensor]  # (B, C, H, W) to (B, C, H, W)

_STEPS = 16  # a crop is shifted by one 16th of the image's side: 2 pixels of 32, 14 of 224


def _same(x: torch.Tensor) -> torch.Tensor:
    return x


def _mirrored(x: torch.Tensor) -> torch.Tensor:
    return x.flip(3)


def _shifted(down: int, right: int) -> View:
    """The view of a window that is one step below (1) or above (-1), and right or left; the border is repeated."""

    def view(x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[2:]
        step = max(1, min(height, width) // _STEPS)
        padded = nn.functional.pad(x, (step, step, step, step), mode="replicate")
        top, left = step * (1 + down), step * (1 + right)
        return padded[:, :, top : top + height, left : left + width]

    return view


_VIEWS: dict[str, tuple[View, ...]] = {
    "none": (_same,),
    "flip": (_same, _mirrored),
    "crops": (_same, _shifted(-1, -1), _shifted(-1, 1), _shifted(1, -1), _shifted(1, 1)),
}


def views(tta: str) -> tuple[View, ...]:
    """The views of "none" (the images alone), "flip" (and mirrored) or "crops" (and four shifted crops).

    Raises:
        UserError: for another name.
    """
    if tta not in _VIEWS:
        raise UserError(f"--tta must be one of {', '.join(_VIEWS)}, got {tta!r}")
    return _VIEWS[tta]


def mean_of_probabilities(logits: Sequence[torch.Tensor]) -> torch.Tensor:
    """Scores (B, K) whose softmax is the mean of the softmax of each of `logits`; one tensor is returned unchanged."""
    if len(logits) == 1:
        return logits[0]
    log_probabilities = torch.stack([each.log_softmax(1) for each in logits])  # (V, B, K)
    return log_probabilities.logsumexp(0) - math.log(len(logits))
