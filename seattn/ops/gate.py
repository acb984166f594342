"""Channel gate: x times a gate for every channel, from logits that the caller computes.

Hu et al., Squeeze-and-Excitation Networks, CVPR 2018, https://arxiv.org/abs/1709.01507, eq. 4.
Shapes: B images, C channels, H x W pixels.
"""

from typing import Any

import torch
from torch import Tensor

from seattn.ops._checks import check_device, check_map
from seattn.ops._kernel import choose, too_large
from seattn.ops._maps import column, compute_dtype
from seattn.ops._operator import Operator, Outputs, define, dense_like, public_op
from seattn.ops._tail.activations import check_names, gate_fn, gate_grad


def _run(x: Tensor, logits: Tensor, gate: str) -> Tensor:
    check_map(x)
    if not logits.is_floating_point() or logits.dim() != 2 or logits.shape != x.shape[:2]:
        raise ValueError(
            f"logits must be {tuple(x.shape[:2])} of a floating-point dtype; got {tuple(logits.shape)} {logits.dtype}"
        )
    check_device("logits", logits, x)
    check_names("identity", gate)
    implementation = choose(x, too_large)
    if implementation == "reference":
        return channel_gate_reference(x, logits, gate=gate)
    return _channel_gate(implementation, x, logits.to(compute_dtype(x)), gate)[0]


def channel_gate_reference(x: Tensor, logits: Tensor, *, gate: str = "sigmoid") -> Tensor:
    """The definition, in fp32 with one rounding. Arguments as in `channel_gate`."""
    dtype = compute_dtype(x)
    scale = gate_fn(logits.to(dtype), gate)  # (B, C)
    return (x.to(dtype) * scale[:, :, None, None]).to(x.dtype)


@public_op(_run)
def channel_gate(x: Tensor, logits: Tensor, *, gate: str = "sigmoid") -> tuple[Tensor, Tensor, str]:
    """y = x * gate(logits), by the implementation that `set_kernels` chose.

    The gates are computed in fp32 (float64 for a float64 x). The backward makes the gradients of x and of the logits in
    one pass.

    Args:
        x: (B, C, H, W), floating point; NCHW and channels_last without a copy. At least one pixel; B may be 0.
        logits: (B, C), floating point; may differ from x in dtype.
        gate: sigmoid, two_sigmoid (2 * sigmoid: 1 at zero) or hard_sigmoid (relu6(z + 3) / 6).

    Returns:
        (B, C, H, W) with the dtype and memory format of x.

    Raises:
        ValueError: for shapes that do not fit, mixed devices, a dtype that is not floating point, or an unknown name.
        RuntimeError: if the kernels are set to "triton" or "torch" and that implementation cannot run.
    """
    return x, logits, gate


def _fwd_torch(x: Tensor, logits: Tensor, gate: str) -> tuple[Tensor, Tensor]:
    x, scale = dense_like(x, x), gate_fn(logits.contiguous(), gate)
    return x * column(scale, x), scale


def _bwd_torch(dy: Tensor, x: Tensor, scale: Tensor, gate: str) -> tuple[Tensor, Tensor]:
    x = dense_like(x, x)
    dy = dense_like(dy, x)
    dx = dy * x  # the buffer of the result; first it holds the product
    dlogits = gate_grad(dx.sum((2, 3), dtype=scale.dtype), scale, gate)
    return torch.mul(dy, column(scale, x), out=dx), dlogits


def _fwd_triton(x: Tensor, logits: Tensor, gate: str) -> Outputs:
    from seattn_kernels import channel_gate as kernels  # needs triton, which `import seattn` must not

    return kernels.channel_gate_fwd(dense_like(x, x), logits.contiguous(), gate)


def _bwd_triton(dy: Tensor, x: Tensor, scale: Tensor, gate: str) -> Outputs:
    from seattn_kernels import channel_gate as kernels

    x = dense_like(x, x)
    return kernels.channel_gate_bwd(dense_like(dy, x), x, scale.contiguous(), gate)


def _fwd_fake(x: Tensor, logits: Tensor, gate: str) -> Outputs:
    return torch.empty_like(dense_like(x, x)), logits.new_empty(logits.shape)


def _bwd_fake(dy: Tensor, x: Tensor, scale: Tensor, gate: str) -> Outputs:
    return torch.empty_like(dense_like(x, x)), scale.new_empty(scale.shape)


def _save(inputs: tuple[Any, ...], outputs: Outputs) -> tuple[tuple[Tensor | None, ...], tuple[Any, ...]]:
    x, _, gate = inputs
    return (x, outputs[1]), (gate,)


_channel_gate = define(
    Operator(
        name="channel_gate",
        fwd={"torch": _fwd_torch, "triton": _fwd_triton},
        bwd={"torch": _bwd_torch, "triton": _bwd_triton},
        fwd_fake=_fwd_fake,
        bwd_fake=_bwd_fake,
        save=_save,
    )
)
