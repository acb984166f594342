"""Every op of the attention-tail form, as a function of differentiable tensors: what the tests of this folder run over.

Shapes: (B, C, H, W, R) with R hidden channels.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from seattn import ops
from seattn.ops._tail.in_torch import WIDEN_BELOW

# RMS of the difference over RMS of the reference: values and gradients of maps, then gradients of weights.
# bfloat16 leaves room for the interpreter, which truncates where a GPU rounds.
TOLERANCES = {torch.float32: (5e-6, 1e-5), torch.float16: (5e-4, 1e-5), torch.bfloat16: (5e-3, 1e-5)}
# With a norm more terms cancel in the gradients of the weights.
WITH_NORM = {dtype: (of_maps, 5e-5) for dtype, (of_maps, _) in TOLERANCES.items()}
# What the torch functions round to 16 bit on the way, as eager torch does: the norm, and large maps. 2 eps.
ROUNDED = {dtype: (2 * torch.finfo(dtype).eps,) * 2 for dtype in (torch.float16, torch.bfloat16)}
SHAPES = {
    "one-channel": (3, 1, 3, 1, 1),
    "odd": (3, 7, 5, 3, 3),
    "one-pixel": (3, 16, 1, 1, 4),
    "prime-C-33x33": (1, 13, 33, 33, 1),
    "33-channels": (2, 33, 7, 7, 5),
    "R-above-C": (2, 5, 4, 4, 11),
    "powers-of-two": (2, 64, 8, 8, 4),
    "many-tiles": (1, 97, 9, 9, 70),
}
MAPS = {  # every dtype and every layout, not every pair
    "fp32-nchw": (torch.float32, torch.contiguous_format),
    "fp32-channels_last": (torch.float32, torch.channels_last),
    "fp16-nchw": (torch.float16, torch.contiguous_format),
    "bf16-channels_last": (torch.bfloat16, torch.channels_last),
}
FORMATS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
EMPTY = (0, 8, 5, 5, 2)


class Case:
    """An op with its inputs: `leaves` have gradients, running statistics are fresh for every call.

    Args:
        parts: names out of "shortcut", "norm", and one of "se", "eca", "ese".
        call: (x, named tensors, running mean, running var) -> y.
    """

    def __init__(self, call: Callable[..., Tensor], *parts: str, training: bool | None = None) -> None:
        self.call = call if training is None else partial(call, training=training)
        self.parts = parts
        self.training = training

    def leaves(self, shape, dtype=torch.float32, memory_format=torch.contiguous_format, device="cpu"):
        """x and the other differentiable inputs by name; maps in `dtype`, weights in fp32."""
        b, c, h, w, r = shape
        rng = torch.Generator().manual_seed(0)
        randn = lambda *s: torch.randn(*s, generator=rng)  # noqa: E731
        sizes = {"se": {"w1": (r, c), "b1": (r,), "w2": (c, r), "b2": (c,)}, "eca": {"taps": (3,)}}
        sizes |= {"ese": {"w1": (c, c), "b1": (c,)}, "norm": {"weight": (c,), "bias": (c,)}}
        named = {"x": randn(b, c, h, w)}
        if "shortcut" in self.parts:
            named["shortcut"] = randn(b, c, h, w)
        maps = set(named)
        for part in self.parts:
            for name, size in sizes.get(part, {}).items():
                fan_in = size[-1] if len(size) == 2 else 1
                named[name] = randn(*size) / fan_in**0.5
        if "weight" in named:
            named["weight"] = 1 + named["weight"] / 4
        return {
            name: t.to(device, dtype).contiguous(memory_format=memory_format) if name in maps else t.to(device)
            for name, t in named.items()
        }

    def __call__(self, leaves: dict[str, Tensor], **names: str) -> Tensor:
        named = dict(leaves)
        x = named.pop("x")
        if self.training is not None:
            wide = torch.float64 if x.dtype == torch.float64 else torch.float32
            mean = torch.linspace(-0.25, 0.25, x.shape[1], device=x.device, dtype=wide)
            var = torch.linspace(0.5, 1.5, x.shape[1], device=x.device, dtype=wide)
            named |= {"running_mean": mean, "running_var": var}
        if "taps" in named:
            named["attn_weight" if "norm" in self.parts else "weight"] = named.pop("taps")
        if "ese" in self.parts:
            named["weight"], named["bias"] = named.pop("w1"), named.pop("b1")
        return self.call(x, **named, **names)


CASES = {
    "se": Case(ops.squeeze_excite, "se"),
    "se-tail": Case(ops.squeeze_excite_add_act, "shortcut", "se"),
    "bn-se-tail": Case(ops.batch_norm_squeeze_excite_add_act, "shortcut", "norm", "se", training=True),
    "bn-se-tail-eval": Case(ops.batch_norm_squeeze_excite_add_act, "shortcut", "norm", "se", training=False),
    "bn-tail": Case(ops.batch_norm_add_act, "shortcut", "norm", training=True),
    "bn-tail-eval": Case(ops.batch_norm_add_act, "shortcut", "norm", training=False),
    "eca": Case(ops.efficient_channel_attn, "eca"),
    "eca-tail": Case(ops.efficient_channel_attn_add_act, "shortcut", "eca"),
    "bn-eca-tail": Case(ops.batch_norm_efficient_channel_attn_add_act, "shortcut", "norm", "eca", training=True),
    "ese": Case(ops.effective_squeeze_excite, "ese"),
}


def run(case: Case, leaves: dict[str, Tensor], dy: Tensor | None = None, **names: str) -> dict[str, Tensor]:
    """y and the gradient of every leaf."""
    grown = {name: t.detach().requires_grad_() for name, t in leaves.items()}
    y = case(grown, **names)
    if dy is None:
        dy = torch.linspace(-1, 2, y.numel(), device=y.device).view(y.shape)
    grads = torch.autograd.grad(y, list(grown.values()), dy.to(y.dtype))
    return {"y": y.detach()} | {f"d{name}": g for name, g in zip(grown, grads, strict=True)}


def assert_agrees(case: Case, kernels: str, leaves: dict[str, Tensor], dy: Tensor | None = None, **names: str) -> None:
    """The implementation on `leaves` against the reference on the same numbers in float64."""
    dtype = leaves["x"].dtype
    with ops.set_kernels(kernels):
        got = run(case, leaves, dy, **names)
    if dy is None:  # the same rounded gradient for both
        dy = torch.linspace(-1, 2, got["y"].numel(), device=got["y"].device).view(got["y"].shape).to(dtype)
    if names.get("out_act", "relu") == "relu" and "shortcut" in case.parts:
        # Where y is 0 for the one and barely above it for the other, rounding decides whether dy passes: leave it out.
        with ops.set_kernels("reference"):
            wide_y = case({name: t.double() for name, t in leaves.items()}, **names)
        dy = torch.where((wide_y > 0) == (got["y"] > 0), dy, torch.zeros_like(dy))
        with ops.set_kernels(kernels):
            got = run(case, leaves, dy, **names)
    with ops.set_kernels("reference"):
        want = run(case, {name: t.double() for name, t in leaves.items()}, dy.double(), **names)
    rounds = "norm" in case.parts or leaves["x"].numel() >= WIDEN_BELOW
    limits = (
        ROUNDED
        if kernels == "torch" and rounds and dtype in ROUNDED
        else WITH_NORM
        if "norm" in case.parts
        else TOLERANCES
    )
    for name, a in got.items():
        b = want[name]
        of_a_map = name in ("y", "dx", "dshortcut")
        limit = limits[dtype][0 if of_a_map else 1]
        assert a.shape == b.shape, name
        assert a.dtype == (dtype if of_a_map else leaves[name[1:]].dtype), name
        error, scale = (a.double() - b).norm(), b.norm()
        assert error <= limit * scale, f"{name}: {error / scale:.2e} of the reference's RMS, allowed {limit}"
