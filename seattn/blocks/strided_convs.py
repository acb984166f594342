"""Narrow 1 x 1 convolutions with a stride, whose gradient oneDNN computes outside its memory on a CPU.

In channels_last, the gradient of the weights of such a convolution writes behind oneDNN's buffer if it has fewer input
channels than a vector register has numbers (8 with AVX2, 16 with AVX-512): the process ends, or the gradient is wrong.
https://github.com/uxlfoundation/oneDNN/issues/6035. Nets of usual widths have none; a pruned net may.
"""

import torch
from torch import Tensor, nn

_WIDEST_REGISTER = 16  # float32 numbers in a register of AVX-512


def take_strides_out(model: nn.Module) -> int:
    """Let each such convolution take every s-th pixel of its input x (B, C, H, W) and run with stride 1, in place.

    Outputs, gradients and the state dict stay as they are.

    Returns:
        The number of changed convolutions.
    """
    found = [module for module in model.modules() if isinstance(module, nn.Conv2d) and _is_affected(module)]
    for conv in found:
        conv.register_forward_pre_hook(_Subsample(*conv.stride))
        conv.stride = (1, 1)
    return len(found)


def _is_affected(conv: nn.Conv2d) -> bool:
    narrow = conv.in_channels // conv.groups < _WIDEST_REGISTER
    return narrow and conv.kernel_size == (1, 1) and conv.stride != (1, 1) and conv.padding in ((0, 0), "valid")


class _Subsample:
    """The hook; a class, because a copy of the net must be able to copy it."""

    def __init__(self, down: int, right: int) -> None:
        self.down, self.right = down, right

    def __call__(self, conv: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        (x,) = args
        return (x[:, :, :: self.down, :: self.right].contiguous(memory_format=torch.channels_last),)
