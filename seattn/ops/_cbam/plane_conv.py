"""The convolution of CBAM's two pooled planes into one, with its gradients.

A CPU's library runs a convolution of so few channels without its vector units. The same sums as a depthwise
convolution, whose channels are the images, use them and are several times faster: for the gradient of the planes, and
forward where the planes are large enough.
Shapes: pooled (N, 2, H, W), weight (1, 2, k, k) with k odd, z (N, H, W); stride 1, padded with zeros to keep H x W.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# The numbers in the planes from which a depthwise convolution is faster in the forward.
DEPTHWISE_FROM = 20_000


def plane_conv(pooled: Tensor, weight: Tensor) -> Tensor:
    """z, (N, H, W)."""
    if _suits_depthwise(pooled) and pooled.numel() >= DEPTHWISE_FROM:
        per_plane = _depthwise(pooled.transpose(0, 1), weight[0])
        return per_plane[0] + per_plane[1]
    with _exact(pooled):
        return F.conv2d(pooled, weight, padding=weight.shape[2] // 2).view(pooled[:, 0].shape)


def plane_conv_grads(dz: Tensor, pooled: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of pooled, (N, 2, H, W), and of weight, (1, 2, k, k)."""
    depthwise = _suits_depthwise(pooled)
    with _exact(pooled):
        dpooled, dweight, _ = torch.ops.aten.convolution_backward(
            dz.unsqueeze(1),
            pooled,
            weight,
            bias_sizes=None,
            stride=[1, 1],
            padding=[weight.shape[2] // 2] * 2,
            dilation=[1, 1],
            transposed=False,
            output_padding=[0, 0],
            groups=1,
            output_mask=[not depthwise, True, False],
        )
    if depthwise:
        dpooled = _depthwise(dz.expand(2, *dz.shape), weight[0].flip(1, 2)).transpose(0, 1)
    return dpooled, dweight.contiguous()


def _suits_depthwise(pooled: Tensor) -> bool:
    return (
        pooled.is_cpu and pooled.dtype == torch.float32 and pooled.numel() > 0 and torch.backends.mkldnn.is_available()
    )


def _depthwise(planes: Tensor, kernels: Tensor) -> Tensor:
    """Convolve each plane of each image with the kernel of that plane: (2, N, H, W) and (2, k, k) to (2, N, H, W)."""
    _, images, height, width = planes.shape
    size = kernels.shape[1]
    each = kernels.unsqueeze(1).expand(2, images, size, size).reshape(2 * images, 1, size, size)
    channels = planes.reshape(1, 2 * images, height, width)
    return F.conv2d(channels, each, padding=size // 2, groups=2 * images).view(2, images, height, width)


def _exact(t: Tensor) -> AbstractContextManager[Any]:
    """A `with` block: on CUDA fp32 products without TF32, and an algorithm that gives the same bits each time."""
    if not t.is_cuda:
        return nullcontext()
    enabled = torch.backends.cudnn.enabled
    return torch.backends.cudnn.flags(enabled, deterministic=True, allow_tf32=False)
