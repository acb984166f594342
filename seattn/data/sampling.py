"""The images of a run and their order in each epoch, which depends on (seed, epoch) only: all processes have it."""

import numpy as np
import torch


def stream_seed(*key: int) -> int:
    """A seed of 63 bits from `key`; other keys give unrelated streams."""
    words = np.random.SeedSequence([part % 2**64 for part in key]).generate_state(1, np.uint64)
    return int(words[0] >> 1)


def stream(*key: int) -> torch.Generator:
    """A generator on the CPU with the seed `stream_seed(*key)`."""
    return torch.Generator().manual_seed(stream_seed(*key))


def epoch_order(labels: torch.Tensor, generator: torch.Generator, *, balanced: bool) -> torch.Tensor:
    """The indices of the N images of one epoch, in order.

    Args:
        labels: (N,), the class of each image.
        balanced: draw every class equally often; the numbers differ by at most one image. Each image of a class is
            drawn once, in random order, before an image is drawn again.
    """
    count = len(labels)
    if not balanced:
        return torch.randperm(count, generator=generator)
    classes = labels.unique()
    classes = classes[torch.randperm(len(classes), generator=generator)]  # the first ones get an image more
    shares = [count // len(classes) + (i < count % len(classes)) for i in range(len(classes))]
    chosen = []
    for label, share in zip(classes.tolist(), shares, strict=True):
        members = (labels == label).nonzero().flatten()
        rounds = -(-share // len(members))
        drawn = [members[torch.randperm(len(members), generator=generator)] for _ in range(rounds)]
        chosen.append(torch.cat(drawn)[:share])
    order = torch.cat(chosen)
    return order[torch.randperm(count, generator=generator)]


def long_tail(labels: torch.Tensor, ratio: float, seed: int) -> torch.Tensor:
    """Sorted indices of the images that are left where each class has fewer than the one before it.

    Class k of K keeps round(n ratio^(-k / (K - 1))) of its images, and at least one, where n is the number of images of
    the largest class: a class at the front keeps them all (Cui et al., CVPR 2019, https://arxiv.org/abs/1901.05555,
    section 5.1).

    Args:
        labels: (N,), of classes that are numbered from 0.
        ratio: images of the first class over those of the last, from 1.
        seed: selects the images.
    """
    counts = torch.bincount(labels)
    last = max(len(counts) - 1, 1)
    generator = stream(seed, len(labels))
    chosen = []
    for label in range(len(counts)):
        members = (labels == label).nonzero().flatten()
        share = max(1, round(int(counts.max()) * ratio ** (-label / last)))
        chosen.append(members[torch.randperm(len(members), generator=generator)][:share])
    return torch.cat(chosen).sort().values
