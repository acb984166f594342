"""Several models as one: the mean of their probabilities, or the class that most of them answer.

Shapes: M models, B images, K classes.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import nn

from seattn.core.errors import UserError
from seattn.data.transforms import class_names
from seattn.evaluation.probabilities.views import mean_of_probabilities

Ensemble = Literal["average", "vote"]
ENSEMBLES = ("average", "vote")


def combine(scores: Sequence[torch.Tensor], ensemble: str) -> torch.Tensor:
    """The scores (B, K) of M models together, from those of each model; their softmax is the probabilities.

    Args:
        ensemble: "average" is the mean of the probabilities. With "vote" each model has one vote, and the mean of the
            probabilities is one more vote, which is divided among the classes and decides a tie: the probability of a
            class is its share of these M + 1 votes.

    Raises:
        UserError: for another name.
    """
    if ensemble not in ENSEMBLES:
        raise UserError(f"--ensemble must be one of {', '.join(ENSEMBLES)}, got {ensemble!r}")
    mean = mean_of_probabilities(scores).log_softmax(1)  # (B, K)
    if ensemble == "average":
        return mean
    votes = sum(nn.functional.one_hot(each.argmax(1), each.shape[1]) for each in scores)  # (B, K)
    return torch.logaddexp(torch.as_tensor(votes).log(), mean) - math.log(len(scores) + 1)


def class_orders(models: Mapping[str, nn.Module]) -> list[list[int]]:
    """For each model, by its name, the order of its outputs in which its classes are those of the first model.

    Of classes with the same name, such as ImageNet's two cranes, the first one of a model is that of the other models.

    Raises:
        UserError: if a model has other classes than the first one.
    """
    (first, net), *_ = models.items()
    names = _numbered(class_names(net))
    orders = []
    for name, model in models.items():
        own = _numbered(class_names(model))
        if strays := sorted(names.keys() ^ own.keys()):
            raise UserError(
                f"{first} has {len(names)} classes, {name} {len(own)}, and only one of them has {strays[0][0]!r}: an "
                "ensemble needs models of the same classes"
            )
        orders.append([own[label] for label in names])
    return orders


def _numbered(names: Sequence[str]) -> dict[tuple[str, int], int]:
    """The place of each name, and for a repeated name of each repetition."""
    seen: Counter[str] = Counter()
    places = {}
    for place, name in enumerate(names):
        places[name, seen[name]] = place
        seen[name] += 1
    return places
