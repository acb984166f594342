"""The same net with timm's layers: the comparison for our nets and for nets that `seattn.accelerate` changed."""

import copy

import torch
from timm.layers import EcaModule, SEModule
from timm.models.resnet import BasicBlock, Bottleneck
from torch import nn

from seattn.layers.eca import EfficientChannelAttn
from seattn.layers.se import SqueezeExcite


def timm_twin(model: nn.Module) -> nn.Module:
    """A copy of `model` whose blocks and attention layers are timm's own, with the same names and weights.

    Raises:
        ValueError: if the model has a layer of ours other than squeeze-excite and ECA.
    """
    twin = copy.deepcopy(model)
    for module in twin.modules():
        for plain in (BasicBlock, Bottleneck, SEModule, EcaModule):
            if isinstance(module, plain):
                module.__class__ = plain
    for name, module in list(twin.named_modules()):
        if isinstance(module, SqueezeExcite):
            width, channels = module.fc1.weight.shape[:2]
            timm_layer: nn.Module = SEModule(channels, rd_channels=width)
        elif isinstance(module, EfficientChannelAttn):
            timm_layer = EcaModule(kernel_size=module.conv.weight.shape[-1])
        else:
            continue
        timm_layer.load_state_dict(module.state_dict(), strict=True)
        twin.set_submodule(name, timm_layer.to(next(module.parameters()).device))
    ours = [name for name, module in twin.named_modules() if name and type(module).__module__.startswith("seattn")]
    if ours:
        raise ValueError(f"timm has no layer for {', '.join(ours)}")
    return twin


def check_equal(model: nn.Module, twin: nn.Module, x: torch.Tensor) -> None:
    """Raise AssertionError unless both nets have the same state and the same outputs in training and evaluation.

    Both nets update their running statistics on x, and both are in training mode afterwards.
    """
    state, twin_state = model.state_dict(), twin.state_dict()
    assert list(state) == list(twin_state), "the state dicts have different keys"
    for key, value in state.items():
        torch.testing.assert_close(value, twin_state[key], rtol=0, atol=0, msg=f"{key} differs")
    for training in (False, True):
        outputs = []
        for net in (model, twin):
            net.train(training)
            with torch.no_grad():
                outputs.append(net(x).float())
        scale = float(outputs[1].square().mean().sqrt())
        torch.testing.assert_close(*outputs, rtol=1e-3, atol=1e-3 * scale)
