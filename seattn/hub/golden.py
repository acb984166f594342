"""Golden tensors: an input and the reference's outputs for it, by which anybody can check a download.

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
IMAGES = 4  # at 160 x 160 pixels the file has 1.2 MB
# Relative to the largest value. Another processor adds the terms of a convolution in another order: differences of 1e-6
# were measured. TF32 or half precision would give 1e-3.
TOLERANCE = 1e-4


def make_golden(model: Any) -> dict[str, torch.Tensor]:
    """The golden tensors of `model`, computed by the reference in float32.

    Returns:
        input (B, C, H, W): the first photographs of the package, through the model's transform.
        features (B, F): before the classifier.
        logits (B, K).
    """
    mode, transform = image_mode(model), eval_transform(model)
    images = load_sample("cifar10").images[:IMAGES]
    x = torch.stack([transform(Image.fromarray(image).convert(mode)) for image in images])  # (B, C, H, W)
    with set_kernels("reference"), _one_thread():  # the number of threads changes the last bit of sums
        features, logits = _forward(model, x)
    return {"input": x, "features": features, "logits": logits}


def write_golden(path: Path, model: Any) -> None:
    """Write the golden tensors of `model` to `path`.

    Raises:
        OSError: if they cannot be written.
    """
    path.parent.mkdir()
    tensors = make_golden(model)
    try:
        save_file(tensors, path, metadata={"computed_by": "seattn's reference, float32"})
    except SafetensorError as error:  # a full disk, for example
        raise OSError(f"{path}: {first_line(error)}") from error


def check_golden(path: Path, model: Any) -> float:
    """Check that `model` computes the golden outputs on this machine.

    Returns:
        The largest difference, relative to the largest value.

    Raises:
        UserError: if the file is damaged, its input does not fit the model, or an output differs too much.
    """
    try:
        golden = load_file(path)
        x, expected = golden["input"], {key: golden[key] for key in ("features", "logits")}
    except (OSError, SafetensorError, KeyError) as error:
        raise UserError(f"{path} does not hold input, features and logits: {first_line(error)}") from error
    size = tuple(model.pretrained_cfg["input_size"])
    if x.shape[1:] != size or not 1 <= len(x) <= 64 or x.dtype != torch.float32:
        raise UserError(f"{path}: the input is {x.dtype} of {tuple(x.shape)}, the model takes float32 of (B, {size})")
    largest = 0.0
    for (key, wanted), computed in zip(expected.items(), _forward(model, x), strict=True):
        if wanted.shape != computed.shape:
            raise UserError(f"{path}: {key} is {tuple(wanted.shape)}, the model gives {tuple(computed.shape)}")
        difference = float((computed - wanted.float()).abs().max() / computed.abs().max())
        if not difference <= TOLERANCE:  # also if it is NaN
            raise UserError(
                f"{path}: the model's {key} differ by {difference:.1g} of their largest value, {TOLERANCE:g} is "
                "allowed; either these are other weights, or this machine does not compute in float32"
            )
        largest = max(largest, difference)
    return largest


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
