"""Golden tensors: an input, and what the reference computes from it, so that anybody can check a download.

Shapes: B images, C channels, H x W pixels, F features, K classes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from seattn.core.errors import UserError, first_line
from seattn.data.samples import load_sample
from seattn.data.transforms import eval_transform, image_mode
from seattn.ops import set_kernels

GOLDEN = "test/golden.safetensors"
IMAGES = 4  # 160 x 160 pixels are 1.2 MB then
# Of the largest value. Convolutions add in another order on another processor: 1e-6 of difference was seen, and TF32 or
# half precision would be 1e-3.
TOLERANCE = 1e-4


def make_golden(model: Any) -> dict[str, torch.Tensor]:
    """input (B, C, H, W): the first packaged photographs as the model's transform makes them; features (B, F), before
    the classifier, and logits (B, K): by the reference, in fp32."""
    mode, transform = image_mode(model), eval_transform(model)
    images = load_sample("cifar10").images[:IMAGES]
    x = torch.stack([transform(Image.fromarray(image).convert(mode)) for image in images])  # (B, C, H, W)
    with set_kernels("reference"), _one_thread():  # how many threads there are changes sums in the last bit
        features, logits = _forward(model, x)
    return {"input": x, "features": features, "logits": logits}


def write_golden(path: Path, model: Any) -> None:
    """Write them to `path`."""
    path.parent.mkdir()
    save_file(make_golden(model), path, metadata={"computed_by": "seattn's reference, float32"})


def check_golden(path: Path, model: Any) -> float:
    """Hold that `model` computes here what stands in `path`; the largest difference, as a part of the largest value.

    Raises:
        UserError: if the file is damaged or its input is none of the model's, or an output is further off than
            TOLERANCE.
    """
    try:
        golden = load_file(path)
        x, expected = golden["input"], {key: golden[key] for key in ("features", "logits")}
    except (OSError, SafetensorError, KeyError) as error:
        raise UserError(f"{path} does not hold input, features and logits: {first_line(error)}") from error
    size = tuple(model.pretrained_cfg["input_size"])
    if x.shape[1:] != size or not 1 <= len(x) <= 64 or x.dtype != torch.float32:
        raise UserError(f"{path}: the input is {x.dtype} of {tuple(x.shape)}, the model takes float32 of (B, {size})")
    furthest = 0.0
    for (key, wanted), found in zip(expected.items(), _forward(model, x), strict=True):
        if wanted.shape != found.shape:
            raise UserError(f"{path}: {key} is {tuple(wanted.shape)}, the model gives {tuple(found.shape)}")
        difference = float((found - wanted.float()).abs().max() / found.abs().max())
        if not difference <= TOLERANCE:  # NaN is not
            raise UserError(
                f"{path}: the model's {key} differ by {difference:.1g} of their largest value, {TOLERANCE:g} is "
                "allowed; the weights are other ones, or this machine does not compute in float32"
            )
        furthest = max(furthest, difference)
    return furthest


@torch.inference_mode()
def _forward(model: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    maps = model.forward_features(x)  # (B, F, h, w), or tokens
    return model.forward_head(maps, pre_logits=True).contiguous(), model(x).contiguous()  # (B, F), (B, K)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
