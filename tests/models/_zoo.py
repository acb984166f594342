"""Every net of this package, and which of them compute by default; the others do so in `make test-slow`."""

import pytest
import timm
import torch

import seattn
from tests.helpers.nets import settle

NETS = [name for name in timm.list_models() if timm.model_entrypoint(name).__module__.startswith("seattn.")]
KINDS = ("", "se", "eca", "cbam")
CHEAPEST = ("resnet20_cifar", "preact_resnet18_cifar", "mobilenetv2_cifar", "resnet18")  # of each family
# Each family with each kind, and what else a trunk can be: four stages, bottlenecks, the other stems.
RUN = [f"{kind}_{net}".lstrip("_") for net in CHEAPEST for kind in KINDS if kind or net != "resnet18"]
RUN += ["se_resnet18_cifar", "se_resnet50_cifar", "se_resnet18_stem7_cifar", "se_resnet14_deep_cifar"]
TRUNKS = [name for name in RUN if name.startswith("se_")]  # where the kind of attention does not matter
TRACED = [f"se_{net}" for net in CHEAPEST]  # compilers take seconds a net


def each(default, *, of=NETS):
    """Parameters: all names in `of`, those that are not in `default` marked slow."""
    assert set(default) <= set(of)
    return [pytest.param(name, marks=() if name in default else pytest.mark.slow) for name in of]


def family(name):
    """The module that the net is registered in."""
    return timm.model_entrypoint(name).__module__.rpartition(".")[2]


def kind(name):
    """The attention layer's name, or ""."""
    prefix = name.partition("_")[0]
    return prefix if prefix in seattn.layers.list_attn() else ""


def plain(name):
    """The net without attention."""
    return name.removeprefix(f"{kind(name)}_")


def name_of(model):
    return model.pretrained_cfg["architecture"]


def attention(model):
    """Name -> layer of this package in the model."""
    kinds = tuple(seattn.layers.get_attn(name) for name in seattn.layers.list_attn())
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


def side(name):
    """A small image's, large enough for every stride."""
    return 64 if family(name) == "resnet_attn" else 16


def images(name, count=4, chans=3):
    return torch.randn(count, chans, side(name), side(name), generator=torch.Generator().manual_seed(1))


def create(name, **kwargs):
    torch.manual_seed(0)
    return timm.create_model(name, **kwargs)


def build(name, **kwargs):
    """The net in eval mode, with norms that hide no branch."""
    model = create(name, **kwargs)
    return settle(model, images(name, chans=kwargs.get("in_chans", 3))).eval()
