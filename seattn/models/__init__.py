"""Architectures and their weight tables. A new family is one file and its line here."""

from seattn.models import mobilenetv2_cifar, preact_resnet_cifar, resnet_attn, resnet_cifar
from seattn.models._pretrained import models_with_weights

__all__ = ["mobilenetv2_cifar", "models_with_weights", "preact_resnet_cifar", "resnet_attn", "resnet_cifar"]
