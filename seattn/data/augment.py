"""Augmentations of whole batches on any device: one function draws on the CPU, another one applies the draws.

Each has the distribution of torchvision's or timm's transform of PIL images. Colours and resampling are computed as in
Pillow, to one level in 255 (a few levels where a resize shrinks: Pillow rounds between its two passes).
Shapes: B images of a batch, H x W pixels, C channels, which are last in images of uint8: 1 (grey), 3 (RGB) or 4 (RGBA);
boxes are (top, left, height, width) in pixels.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]  # H, W
ATTEMPTS = 10  # draws of a box until one fits, in torchvision and in timm


def draw_flips(count: int, probability: float, generator: torch.Generator) -> Tensor:
    """(B,) bool, each True with the given probability."""
    return torch.rand(count, generator=generator) < probability


def flip(images: Tensor, flips: Tensor, *, axis: int) -> Tensor:
    """Mirror the images (B, H, W, C) that `flips` (B,) names: axis 2 left to right, axis 1 upside down."""
    return torch.where(flips[:, None, None, None], images.flip(axis), images)


def draw_offsets(count: int, padding: int, generator: torch.Generator) -> Tensor:
    """(B, 2) int64: the top and left of a crop to an image's own size out of a border of `padding` pixels."""
    return torch.randint(2 * padding + 1, (count, 2), generator=generator)


def crop_padded(images: Tensor, offsets: Tensor, padding: int, border: str = "black") -> Tensor:
    """Crop each image (B, H, W, C) at its offset out of a border of `padding` pixels, as RandomCrop.

    Args:
        border: "black", or "reflect" for the image mirrored at its edge, whose own row or column is not repeated;
            `padding` is then less than H and W.
    """
    count, height, width, channels = images.shape
    rows = offsets[:, :1] + torch.arange(height, device=images.device) - padding  # (B, H), of the image itself
    columns = offsets[:, 1:] + torch.arange(width, device=images.device) - padding  # (B, W)
    if border == "reflect":
        rows, columns = _reflected(rows, height), _reflected(columns, width)
    else:
        images = F.pad(images, (0, 0, padding, padding, padding, padding))  # (B, H + 2p, W + 2p, C)
        rows, columns = rows + padding, columns + padding
    first = torch.arange(count, device=images.device)[:, None, None] * images.shape[1]
    index = (first + rows[:, :, None]) * images.shape[2] + columns[:, None, :]  # (B, H, W)
    return images.reshape(-1, channels).index_select(0, index.view(-1)).view(count, height, width, channels)


def _reflected(place: Tensor, size: int) -> Tensor:
    """Places in a line of `size` pixels; places before its first pixel and after its last are mirrored into it."""
    last = size - 1
    return last - (last - place.abs()).abs()


def draw_boxes(
    count: int, size: Size, scale: tuple[float, float], ratio: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """(B, 4) int64: boxes of a share `scale` of the area and of width over height `ratio`, as RandomResizedCrop draws.

    The result is the first of ten draws that fits; if none fits, the largest box in the middle with an allowed ratio.
    """
    height, width = size
    area = _uniform((count, ATTEMPTS), scale, generator) * height * width
    shape = _uniform((count, ATTEMPTS), (math.log(ratio[0]), math.log(ratio[1])), generator).exp()
    w, h = (area * shape).sqrt().round(), (area / shape).sqrt().round()  # (B, 10)
    boxes = _placed(h, w, size, generator)  # (B, 10, 4)
    fits = (w <= width) & (h <= height)
    chosen = boxes[torch.arange(count), fits.byte().argmax(1)]  # (B, 4)
    return torch.where(fits.any(1)[:, None], chosen, torch.tensor(_middle_box(size, ratio)))


def _placed(h: Tensor, w: Tensor, size: Size, generator: torch.Generator) -> Tensor:
    """(..., 4) int64: boxes of heights h (...) and widths w (...), each at a random place of the image."""
    place = torch.rand((2, *h.shape), generator=generator, dtype=torch.float64)
    top, left = (place[0] * (size[0] - h + 1)).floor(), (place[1] * (size[1] - w + 1)).floor()
    return torch.stack([top, left, h, w], -1).long()


def _middle_box(size: Size, ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    height, width = size
    h, w = height, width
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    return (height - h) // 2, (width - w) // 2, h, w


def resized_crop(images: Tensor, boxes: Tensor, size: Size, bicubic: Tensor) -> Tensor:
    """Cut `boxes` (B, 4) out of images (B, H, W, C) uint8 and resize them to (B, *size, C), as Pillow does.

    Pillow's filters are sums over rows and columns, so a resize is two products with matrices; where it shrinks, the
    filter widens (antialiasing). `F.grid_sample` and `F.interpolate` differ: the first does not antialias and reads
    beyond the box, and their bicubic filter is another (a = -0.75, Pillow's is -0.5).

    Args:
        bicubic: (B,) bool, bilinear where False.
    """
    count, height, width, channels = images.shape
    down = resize_weights(boxes[:, 0], boxes[:, 2], height, size[0], bicubic)  # (B, size[0], H)
    across = resize_weights(boxes[:, 1], boxes[:, 3], width, size[1], bicubic)  # (B, size[1], W)
    x = images.permute(0, 1, 3, 2).float().reshape(count, height * channels, width)  # (B, H * C, W)
    x = (x @ across.mT).add_(0.5).floor_().clamp_(0, 255).view(count, height, channels * size[1])
    x = (down @ x).add_(0.5).floor_().clamp_(0, 255)  # (B, size[0], C * size[1])
    x = x.view(count, size[0], channels, size[1])
    return x.permute(0, 1, 3, 2).to(torch.uint8)  # (B, *size, C)


def resize_weights(start: Tensor, length: Tensor, inputs: int, outputs: int, bicubic: Tensor) -> Tensor:
    """(B, outputs, inputs): the weight of each input pixel in each output pixel, for boxes [start, start + length)."""
    step = (length.float() / outputs)[:, None, None]  # input pixels an output pixel, (B, 1, 1)
    centre = (torch.arange(outputs, device=start.device) + 0.5)[None, :, None] * step  # (B, outputs, 1)
    place = torch.arange(inputs, device=start.device)[None, None] - start[:, None, None]  # (B, 1, inputs)
    d = ((place + 0.5 - centre) / step.clamp(min=1)).abs()  # (B, outputs, inputs)
    near = (1.5 * d - 2.5) * d * d + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    cubic = torch.where(d < 1, near, torch.where(d < 2, far, 0.0))
    weights = torch.where(bicubic[:, None, None], cubic, (1 - d).clamp(min=0))
    weights = torch.where((place >= 0) & (place < length[:, None, None]), weights, 0.0)
    return weights / weights.sum(2, keepdim=True)


def resize(images: Tensor, size: Size) -> Tensor:
    """Images (B, H, W, C) uint8 at another size, bilinear, antialiased where it shrinks."""
    count, height, width, _ = images.shape
    if (height, width) == size:
        return images
    whole = torch.tensor([0, 0, height, width], device=images.device).expand(count, 4)
    return resized_crop(images, whole, size, torch.zeros(count, dtype=torch.bool, device=images.device))


def draw_jitter(count: int, strength: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Factors (B, 3) of brightness, contrast and saturation, and the order (B, 3) of the three in each image."""
    factors = _uniform((count, 3), (max(0.0, 1 - strength), 1 + strength), generator).float()
    return factors, torch.rand((count, 3), generator=generator).argsort(1)


def color_jitter(images: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Change brightness (0), contrast (1) and saturation (2) of images (B, H, W, C) uint8, as ColorJitter.

    A fourth channel does not change, nor does the saturation of grey images.
    """
    x, alpha = images[..., :3].float(), images[..., 3:]
    for step in order.unbind(1):  # (B,)
        grey = _grey(x)  # (B, H, W, 1)
        mean = (grey.mean((1, 2, 3), keepdim=True) + 0.5).floor()  # (B, 1, 1, 1)
        kind = step[:, None, None, None]
        base = torch.where(kind == 2, grey, torch.where(kind == 1, mean, 0.0))  # the result for a factor of 0
        factor = factors.gather(1, step[:, None])[:, :, None, None]  # (B, 1, 1, 1)
        x = (base + factor * (x - base)).clamp(0, 255).floor()
    return torch.cat([x.to(torch.uint8), alpha], -1)


def _grey(x: Tensor) -> Tensor:
    if x.shape[-1] == 1:
        return x
    red, green, blue = x.int().split(1, 3)
    grey: Tensor = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16  # Pillow's fixed point
    return grey.float()


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Images (B, H, W, C) uint8 as (B, C, H, W) float32 of zero mean, channels last in memory."""
    shift = torch.tensor(mean, device=images.device) * 255
    scale = 1 / (torch.tensor(std, device=images.device) * 255)
    return ((images.float() - shift) * scale).permute(0, 3, 1, 2)


def draw_squares(count: int, side: int, size: Size, generator: torch.Generator) -> Tensor:
    """(B, 1, 4): squares around a pixel of the image, which may reach beyond it; DeVries and Taylor's Cutout."""
    centres = torch.stack([torch.randint(n, (count,), generator=generator) for n in size], 1)  # (B, 2)
    sides = torch.full((count, 2), side)
    return torch.cat([centres - side // 2, sides], 1)[:, None]


def draw_erasing(count: int, probability: float, most: int, size: Size, generator: torch.Generator) -> Tensor:
    """(B, most, 4): the rectangles of timm's RandomErasing, height 0 where there is none.

    Args:
        probability: of an image to have rectangles, 1 to `most`; each has a share of 0.02 to 1/3 of the area, divided
            by their number, and an aspect from 0.3 to 1/0.3.
    """
    height, width = size
    blocks = torch.randint(1, most + 1, (count,), generator=generator)  # (B,)
    shape = (count, most, ATTEMPTS)
    area = _uniform(shape, (0.02, 1 / 3), generator) * height * width / blocks[:, None, None]
    aspect = _uniform(shape, (math.log(0.3), -math.log(0.3)), generator).exp()
    h, w = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()  # (B, most, 10)
    boxes = _placed(h, w, size, generator)  # (B, most, 10, 4)
    fits = (h < height) & (w < width)
    first = fits.byte().argmax(2)[:, :, None, None].expand(-1, -1, 1, 4)
    chosen = boxes.gather(2, first).squeeze(2)  # (B, most, 4)
    erased = torch.rand(count, generator=generator) < probability
    used = fits.any(2) & erased[:, None] & (torch.arange(most) < blocks[:, None])
    return torch.where(used[:, :, None], chosen, 0)


def inside(boxes: Tensor, size: Size) -> Tensor:
    """(B, H, W) bool: the pixels of an image that lie in a box (B, 4)."""
    rows, columns = (torch.arange(n, device=boxes.device) for n in size)
    top, left, height, width = boxes[:, :, None].unbind(1)  # (B, 1)
    down = (rows >= top) & (rows < top + height)  # (B, H)
    across = (columns >= left) & (columns < left + width)  # (B, W)
    return down[:, :, None] & across[:, None, :]


def erase(x: Tensor, boxes: Tensor, fill: Tensor | float = 0.0) -> Tensor:
    """Overwrite the boxes (B, R, 4) of x (B, C, H, W) by `fill`; a later box overwrites an earlier one.

    Args:
        fill: one number, or (B, R, C, H or 1, W or 1) of them; 0 is the mean, after `normalize`.
    """
    for block in range(boxes.shape[1]):
        value = fill[:, block] if isinstance(fill, Tensor) else fill
        x = torch.where(inside(boxes[:, block], (x.shape[2], x.shape[3]))[:, None], value, x)
    return x


def _uniform(shape: tuple[int, ...], limits: tuple[float, float], generator: torch.Generator) -> Tensor:
    low, high = limits
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)
