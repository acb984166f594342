"""Nets for tests: built with norms and statistics that hide nothing, compared as a whole."""

import copy
from functools import lru_cache

import timm
import torch
from torch import nn

# The nets that the README names, with the number of modules that run as one op. A dropout would need the same seed.
NAMED = {
    "seresnet50": 16,
    "seresnext50_32x4d": 16,
    "ecaresnet50t": 16,
    "legacy_seresnet50": 16,
    "efficientnet_b0": 16,
    "tf_efficientnetv2_s": 30,
    "mobilenetv3_large_100": 8,
    "regnety_032": 21,
    "resnet50": 16,
}
OWN = [f"{kind}resnet20_cifar" for kind in ("", "se_", "eca_", "cbam_")]


def build(name, *, seed=0, **kwargs):
    """The net with random scales in its norms: timm starts the last of each branch at 0, which would hide the branch.

    The running statistics are those of one batch: with others the outputs of a deep net overflow or mean nothing.
    """
    model = copy.deepcopy(_built(name, seed, **kwargs))
    torch.manual_seed(seed)  # what is drawn next is the same whether the net was built or kept
    return model


@lru_cache(maxsize=8)
def _built(name, seed, **kwargs):
    torch.manual_seed(seed)
    return settle(timm.create_model(name, drop_rate=0.0, **kwargs), images(8))


def settle(model, x):
    """The model in training mode, with random scales in its norms and the running statistics of the batch x."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momentum = [norm.momentum for norm in norms]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.1)
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(x)
    for norm, former in zip(norms, momentum, strict=True):
        norm.momentum = former
    return model


def images(count=4, side=64, *, seed=1, dtype=torch.float32):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed)).to(dtype)


def measure(model, x):
    """One training step's outputs, gradients and statistics, and the outputs in eval after it, all in float64."""
    model.train()
    x = x.clone().requires_grad_()
    y = model(x)
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).to(y.dtype)
    (y * direction).sum().backward()
    found = {"output": y, "input's gradient": x.grad}
    found |= {f"gradient of {name}": p.grad for name, p in model.named_parameters()}
    found |= {f"statistic {name}": b.clone() for name, b in model.named_buffers()}
    model.eval()
    with torch.no_grad():
        found["eval output"] = model(x)
    return {name: t.detach().double() for name, t in found.items()}


def distance(found, expected, part):
    """Norm of the difference over the norm, of all that is called `part` as one vector."""
    names = [name for name in expected if name.startswith(part)]
    assert names
    apart = sum((found[name] - expected[name]).square().sum() for name in names).sqrt()
    return (apart / sum(expected[name].square().sum() for name in names).sqrt()).item()
