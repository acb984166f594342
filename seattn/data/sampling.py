"""The order of an epoch's images, which (seed, epoch) alone decides, for the global batch of all processes."""

import numpy as np
import torch


def stream_seed(*key: int) -> int:
    """A seed of 63 bits from `key`; other keys give unrelated streams."""
    words = np.random.SeedSequence([part % 2**64 for part in key]).generate_state(1, np.uint64)
    return int(words[0] >> 1)


def stream(*key: int) -> torch.Generator:
    """A generator on the CPU with that seed."""
    return torch.Generator().manual_seed(stream_seed(*key))


def epoch_order(labels: torch.Tensor, generator: torch.Generator, *, balanced: bool) -> torch.Tensor:
    """Indices (N,) of an epoch's images, as many as `labels` (N,).

    Args:
        balanced: every class equally often, up to one image; each image of a class is drawn once, in random order,
            before an image is drawn again.
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
