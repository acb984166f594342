"""Learned and random augmentation policies on whole batches, with torchvision's tables and operations.

Cubuk et al., AutoAugment, CVPR 2019, https://arxiv.org/abs/1805.09501; Cubuk et al., RandAugment, NeurIPS 2020,
https://arxiv.org/abs/1909.13719; Müller and Hutter, TrivialAugment, ICCV 2021, https://arxiv.org/abs/2103.10158.
torchvision's transforms draw from torch's global generator, image by image. Here the caller gives a generator, and one
call applies an operation to all images of a batch that get it. The tables of torchvision are private attributes:
`tests/data/test_augment.py` fails where a new version has changed them.
Shapes: B images of a batch, H x W pixels, S operations an image.
"""

from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

FILL = [128, 128, 128]  # the colour beyond the border, as in the papers

_MAKE = {
    "cifar10": lambda: v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10, fill=FILL),
    "imagenet": lambda: v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET, fill=FILL),
    "randaugment": lambda: v2.RandAugment(fill=FILL),
    "trivial": lambda: v2.TrivialAugmentWide(fill=FILL),
}
NOTHING = "Identity"


def torchvision_policy(name: str) -> Any:
    """torchvision's transform of one image: "cifar10" or "imagenet" (AutoAugment), "randaugment", "trivial".

    Raises:
        KeyError: for another name.
    """
    return _MAKE[name]()


class Policy:
    """A policy for batches.

    Args:
        name: as for `torchvision_policy`.
        size: H, W of the images.
    """

    def __init__(self, name: str, size: tuple[int, int]) -> None:
        self._transform: Any = torchvision_policy(name)
        space = self._transform._AUGMENTATION_SPACE
        bins = getattr(self._transform, "num_magnitude_bins", 10)
        self.operations = [NOTHING, *(key for key in space if key != NOTHING)]
        self._magnitudes = torch.zeros(len(self.operations), bins, dtype=torch.float64)
        self._signed = torch.zeros(len(self.operations), dtype=torch.bool)
        for i, operation in enumerate(self.operations[1:], start=1):
            make, self._signed[i] = space[operation]
            magnitudes = make(bins, *size)
            if magnitudes is not None:
                self._magnitudes[i] = magnitudes

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Operations (B, S) int64, indices into `operations`, and magnitudes (B, S) float64."""
        if isinstance(self._transform, v2.AutoAugment):
            operations, bins = self._draw_learned(count, generator)
        else:
            steps = getattr(self._transform, "num_ops", 1)
            operations = torch.randint(len(self.operations), (count, steps), generator=generator)
            level = getattr(self._transform, "magnitude", None)
            highest = self._magnitudes.shape[1]
            bins = torch.randint(highest, (count, steps), generator=generator)
            bins = bins if level is None else torch.full_like(bins, level)
        magnitudes = self._magnitudes[operations, bins]
        negative = (torch.rand(operations.shape, generator=generator) <= 0.5) & self._signed[operations]
        return operations, torch.where(negative, -magnitudes, magnitudes)

    def _draw_learned(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        pairs = self._transform._policies  # of (operation, probability, bin or None)
        index = torch.tensor([[self.operations.index(step[0]) for step in pair] for pair in pairs])
        chance = torch.tensor([[step[1] for step in pair] for pair in pairs])
        bins = torch.tensor([[step[2] or 0 for step in pair] for pair in pairs])
        chosen = torch.randint(len(pairs), (count,), generator=generator)
        done = torch.rand((count, 2), generator=generator) <= chance[chosen]
        return torch.where(done, index[chosen], 0), bins[chosen]

    def apply(self, images: Tensor, operations: Tensor, magnitudes: Tensor) -> Tensor:
        """Images (B, H, W, 3) uint8 after the operations; `operations` and `magnitudes` are on the CPU."""
        x = images.permute(0, 3, 1, 2).contiguous()  # (B, 3, H, W)
        for step in range(operations.shape[1]):
            drawn = torch.stack([operations[:, step].double(), magnitudes[:, step]], 1)  # (B, 2)
            groups, group_index = drawn.unique(dim=0, return_inverse=True)
            for group, (operation, magnitude) in enumerate(groups.tolist()):
                name = self.operations[int(operation)]
                if name == NOTHING:
                    continue
                index = (group_index == group).nonzero().flatten().to(x.device)
                x[index] = self._transform._apply_image_or_video_transform(
                    x[index], name, magnitude, interpolation=self._transform.interpolation, fill=self._transform._fill
                )
        return x.permute(0, 2, 3, 1)
