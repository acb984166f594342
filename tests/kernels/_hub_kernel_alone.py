"""A process that can import torch, triton and Hugging Face's `kernels`, but not seattn and timm: loads and computes.

    TRITON_INTERPRET=1 HF_HUB_OFFLINE=1 HF_HUB_CACHE=CACHE python _hub_kernel_alone.py FOLDER

FOLDER as `make hub-kernels` writes it; CACHE holds it as the Hub's seattn/seattn-squeeze-excite, version 0. Prints
JSON: what was loaded, and the error of y and of every gradient against float64, as RMS over RMS, for each case.
"""

import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import kernels

# Shapes (B, C, H, W, R): odd sizes, one pixel, an empty batch
SHAPES = {
    "odd": (3, 7, 5, 3, 3),
    "33-channels": (2, 33, 7, 7, 5),
    "one-pixel": (2, 16, 1, 1, 4),
    "empty": (0, 8, 5, 5, 2),
}
MAPS = {  # one for each shape: the kernels' own tests have the pairs
    "fp32-nchw": (torch.float32, torch.contiguous_format),
    "fp32-channels_last": (torch.float32, torch.channels_last),
    "fp16-nchw": (torch.float16, torch.contiguous_format),
    "bf16-channels_last": (torch.bfloat16, torch.channels_last),
}
ACTS = {"relu": F.relu, "silu": F.silu, "gelu": F.gelu, "hard_swish": F.hardswish, "identity": lambda h: h}
GATES = {"sigmoid": torch.sigmoid, "two_sigmoid": lambda z: 2 * torch.sigmoid(z), "hard_sigmoid": F.hardsigmoid}


def definition(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, act: str, gate: str) -> Tensor:
    """Hu et al., eq. 2 to 4, written out here and nowhere else."""
    hidden = ACTS[act](F.linear(x.mean((2, 3)), w1, b1))
    return x * GATES[gate](F.linear(hidden, w2, b2))[:, :, None, None]


def errors(kernel, shape, dtype, memory_format, act="relu", gate="sigmoid") -> dict[str, float]:
    b, c, h, w, r = shape
    rng = torch.Generator().manual_seed(0)
    sizes = {"x": (b, c, h, w), "w1": (r, c), "b1": (r,), "w2": (c, r), "b2": (c,)}
    leaves = {n: torch.randn(s, generator=rng) for n, s in sizes.items()}
    leaves["x"] = leaves["x"].to(dtype).contiguous(memory_format=memory_format)
    dy = torch.linspace(-1, 2, b * c * h * w).view(b, c, h, w).to(dtype)
    results = []
    for op, wide in ((kernel.squeeze_excite, False), (definition, True)):
        inputs = [(t.double() if wide else t).detach().requires_grad_() for t in leaves.values()]
        y = op(*inputs, act=act, gate=gate)
        results.append([y.detach(), *torch.autograd.grad(y, inputs, dy.to(y.dtype))])
    assert results[0][0].is_contiguous(memory_format=memory_format)
    pairs = zip(("y", *(f"d{n}" for n in leaves)), *results, strict=True)
    return {n: float((got.double() - want).norm() / max(want.norm(), 1e-30)) for n, got, want in pairs}


def main() -> dict[str, object]:
    for name in ("seattn", "seattn_kernels", "timm", "torchvision"):
        sys.modules[name] = None  # an import of it raises
    kernel = kernels.get_local_kernel(Path(sys.argv[1]))
    before = {"id": kernel.__name__, "kernels": kernel.get_kernels(), "names": sorted(kernel.__all__)}
    found: dict[str, dict[str, float]] = {}
    for kind in ("torch", "triton"):
        with kernel.set_kernels(kind):
            for (s, shape), (m, form) in zip(SHAPES.items(), MAPS.items(), strict=True):
                found[f"{kind}-{s}-{m}"] = errors(kernel, shape, *form)
            for act, gate in [*((act, "sigmoid") for act in ACTS), *(("relu", gate) for gate in GATES)]:
                found[f"{kind}-{act}-{gate}-fp32"] = errors(kernel, SHAPES["odd"], *MAPS["fp32-nchw"], act, gate)
    with kernel.set_kernels("reference"):
        found["reference-odd-fp32"] = errors(kernel, SHAPES["odd"], *MAPS["fp32-nchw"])
    from_the_hub = kernels.get_kernel("seattn/seattn-squeeze-excite", version=0)
    x, w1, w2 = torch.randn(2, 4, 3, 3), torch.randn(2, 4), torch.randn(4, 2)
    same = torch.equal(from_the_hub.squeeze_excite(x, w1, None, w2, None), kernel.squeeze_excite(x, w1, None, w2, None))
    loaded = {name.partition(".")[0] for name, module in sys.modules.items() if "seattn" in name and module}
    ours = sorted(name for name in loaded if not name.startswith("__editable__"))  # pip's finder of an editable install
    return {**before, "errors": found, "hub": {"file": from_the_hub.__file__, "same": same}, "modules": ours}


if __name__ == "__main__":
    print(json.dumps(main()))
