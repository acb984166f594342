"""Learned and random augmentation policies on whole batches: what torchvision does to one image, group by group.

Cubuk et al., AutoAugment, CVPR 2019, https://arxiv.org/abs/1805.09501; Cubuk et al., RandAugment, NeurIPS 2020,
https://arxiv.org/abs/1909.13719; Müller and Hutter, TrivialAugment, ICCV 2021, https://arxiv.org/abs/2103.10158.
The tables and the operations are torchvision's own. Its transforms draw from torch's global generator, image by image;
here a generator is given, and the images of a batch that get the same operation get it at once.
Shapes: B images of a batch, H x W pixels, S operations an image.
"""

from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

FILL = [128, 128, 128]  # beyond the border, as in the papers

_MAKE = {
    "cifar10": lambda: v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10, fill=FILL),
    "imagenet": lambda: v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET, fill=FILL),
    "randaugment": lambda: v2.RandAugment(fill=FILL),
    "trivial": lambda: v2.TrivialAugmentWide(fill=FILL),
}
NOTHING = "Identity"


def torchvision_policy(name: str) -> Any:
    """torchvision's transform of one image: "cifar10" or "imagenet" (AutoAugment), "randaugment", "trivial"."""
    return _MAKE[name]()


class Policy:
    """One of those for batches.

    Args:
        name: as of `torchvision_policy`.
        size: H, W of the images.
    """

    def __init__(self, name: str, size: tuple[int, int]) -> None:
        self._one: Any = torchvision_policy(name)
        space = self._one._AUGMENTATION_SPACE
        bins = getattr(self._one, "num_magnitude_bins", 10)
        self.operations = [NOTHING, *(key for key in space if key != NOTHING)]
        rows = [(lambda *_: None, False), *(space[key] for key in self.operations[1:])]
        table = [torch.zeros(bins) if (found := make(bins, *size)) is None else found for make, _ in rows]
        self._magnitudes = torch.stack([row.double() for row in table])  # (operations, bins)
        self._signed = torch.tensor([signed for _, signed in rows])

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Operations (B, S) int64, indices into `operations`, and magnitudes (B, S) float64."""
        if isinstance(self._one, v2.AutoAugment):
            operations, bins = self._draw_learned(count, generator)
        else:
            steps = getattr(self._one, "num_ops", 1)
            # "Identity" is one of the operations of both.
            operations = torch.randint(len(self.operations), (count, steps), generator=generator)
            level = getattr(self._one, "magnitude", None)
            highest = self._magnitudes.shape[1]
            bins = torch.randint(highest, (count, steps), generator=generator)
            bins = bins if level is None else torch.full_like(bins, level)
        magnitudes = self._magnitudes[operations, bins]
        negative = (torch.rand(operations.shape, generator=generator) <= 0.5) & self._signed[operations]
        return operations, torch.where(negative, -magnitudes, magnitudes)

    def _draw_learned(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        pairs = self._one._policies  # of (operation, probability, bin or None)
        index = torch.tensor([[self.operations.index(step[0]) for step in pair] for pair in pairs])
        chance = torch.tensor([[step[1] for step in pair] for pair in pairs])
        bins = torch.tensor([[step[2] or 0 for step in pair] for pair in pairs])
        chosen = torch.randint(len(pairs), (count,), generator=generator)
        done = torch.rand((count, 2), generator=generator) <= chance[chosen]
        return torch.where(done, index[chosen], 0), bins[chosen]

    def apply(self, images: Tensor, operations: Tensor, magnitudes: Tensor) -> Tensor:
        """Images (B, H, W, 3) uint8 after what was drawn; the draws stay on the CPU."""
        x = images.permute(0, 3, 1, 2).contiguous()  # (B, 3, H, W)
        for step in range(operations.shape[1]):
            drawn = torch.stack([operations[:, step].double(), magnitudes[:, step]], 1)  # (B, 2)
            groups, group_of = drawn.unique(dim=0, return_inverse=True)
            for group, (operation, magnitude) in enumerate(groups.tolist()):
                name = self.operations[int(operation)]
                if name == NOTHING:
                    continue
                index = (group_of == group).nonzero().flatten().to(x.device)
                x[index] = self._one._apply_image_or_video_transform(
                    x[index], name, magnitude, interpolation=self._one.interpolation, fill=self._one._fill
                )
        return x.permute(0, 2, 3, 1)
