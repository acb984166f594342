"""Architectures and their weight tables. A new family is one file and its line here."""

from seattn.models import resnet_cifar
from seattn.models._pretrained import models_with_weights

__all__ = ["models_with_weights", "resnet_cifar"]
