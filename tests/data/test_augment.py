"""Batches against torchvision's and timm's transforms of PIL images: the same results, in the same proportions."""

import math
import random

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import chisquare, ks_2samp
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision import transforms
from torchvision.transforms import functional as vision
from torchvision.transforms import v2

from seattn.data import augment
from seattn.data.policy import FILL, Policy
from seattn.data.samples import load_sample

SURE = 1e-4  # p-value below which two laws differ; all draws are seeded


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def images():
    return torch.from_numpy(load_sample("cifar10").images[:64])


def pil(image):
    return Image.fromarray(image.numpy())


def tensor(image):
    return torch.from_numpy(np.array(image))


def test_crop_and_flip_give_each_of_torchvisions_results_equally_often(images):
    padding, count = 4, 16_200
    padded = transforms.Pad(padding)(pil(images[0]))
    crops = [vision.crop(padded, top, left, 32, 32) for top in range(9) for left in range(9)]
    possible = {image.tobytes(): i for i, image in enumerate([*crops, *(vision.hflip(crop) for crop in crops)])}
    assert len(possible) == 162
    g = generator()
    batch = images[:1].expand(count, -1, -1, -1)
    batch = augment.crop_padded(batch, augment.draw_offsets(count, padding, g), padding)
    batch = augment.flip(batch, augment.draw_flips(count, 0.5, g), axis=2)
    ours = np.bincount([possible[image.tobytes()] for image in batch.numpy()], minlength=162)
    assert chisquare(ours).pvalue > SURE
    torch.manual_seed(0)
    one = transforms.Compose([transforms.RandomCrop(32, padding), transforms.RandomHorizontalFlip()])
    theirs = np.bincount([possible[one(pil(images[0])).tobytes()] for _ in range(2000)], minlength=162)
    assert chisquare(theirs, ours * theirs.sum() / ours.sum()).pvalue > SURE


def test_crop_without_padding_and_flip_upside_down(images):
    assert torch.equal(augment.crop_padded(images, torch.zeros((64, 2), dtype=torch.long), 0), images)
    assert torch.equal(augment.flip(images, torch.ones(64, dtype=torch.bool), axis=1), images.flip(1))
    assert 200 < augment.draw_flips(1000, 0.25, generator()).sum() < 300


def boxes_of_timm(count, size, scale, ratio):
    random.seed(0)
    blank = Image.new("RGB", size[::-1])
    draw = RandomResizedCropAndInterpolation.get_params
    return np.array([draw(blank, scale, ratio) for _ in range(count)])


@pytest.mark.parametrize(
    ("size", "scale", "ratio"),
    [((32, 32), (0.08, 1.0), (3 / 4, 4 / 3)), ((24, 40), (0.5, 1.0), (0.9, 1.1)), ((33, 8), (0.9, 1.0), (0.7, 1.5))],
    ids=["usual", "wide", "mostly the fall-back"],
)
def test_boxes_of_a_resized_crop_have_timms_law(size, scale, ratio):
    ours = augment.draw_boxes(5000, size, scale, ratio, generator()).numpy()
    theirs = boxes_of_timm(5000, size, scale, ratio)
    assert ((ours[:, :2] >= 0) & (ours[:, :2] + ours[:, 2:] <= np.array(size))).all()
    area = ours[:, 2] * ours[:, 3]
    for mine, other in [*zip(ours.T, theirs.T, strict=True), (area, theirs[:, 2] * theirs[:, 3])]:
        assert ks_2samp(mine, other).pvalue > SURE


def test_fall_back_is_the_middle_box():
    assert augment.draw_boxes(3, (40, 10), (1, 1), (0.5, 2), generator()).unique(dim=0).tolist() == [[10, 0, 20, 10]]
    assert augment.draw_boxes(3, (10, 40), (1, 1), (0.5, 2), generator()).unique(dim=0).tolist() == [[0, 10, 10, 20]]
    assert augment.draw_boxes(3, (10, 10), (1, 1), (2, 2), generator()).unique(dim=0).tolist() == [[2, 0, 5, 10]]


@pytest.mark.parametrize("size", [(32, 32), (16, 16), (20, 47), (9, 7)], ids=str)
@pytest.mark.parametrize("bicubic", [False, True], ids=["bilinear", "bicubic"])
def test_resized_crop_is_pillows(images, size, bicubic):
    boxes = augment.draw_boxes(64, (32, 32), (0.08, 1.0), (3 / 4, 4 / 3), generator())
    ours = augment.resized_crop(images, boxes, size, torch.full((64,), bicubic))
    mode = vision.InterpolationMode.BICUBIC if bicubic else vision.InterpolationMode.BILINEAR
    theirs = [
        vision.resized_crop(pil(image), *box, size, mode) for image, box in zip(images, boxes.tolist(), strict=True)
    ]
    difference = (ours.int() - torch.stack([tensor(image) for image in theirs]).int()).abs()
    # Pillow rounds between its two passes, and where it shrinks one side it may begin with the other than we do.
    own_size = size == (32, 32)
    assert difference.max() <= (1 if own_size else 5)
    assert (difference > 0).float().mean() < (0.001 if own_size else 0.2)


def test_resize_antialiases_as_pillow_does(images):
    theirs = torch.stack([tensor(pil(image).resize((16, 16), Image.Resampling.BILINEAR)) for image in images])
    assert (augment.resize(images, (16, 16)).int() - theirs.int()).abs().max() <= 1
    assert augment.resize(images, (32, 32)) is images


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)], ids=str)
def test_jitter_is_pillows_exactly(images, order):
    factors, _ = augment.draw_jitter(64, 0.8, generator())
    ours = augment.color_jitter(images, factors, torch.tensor(order).expand(64, 3))
    steps = [vision.adjust_brightness, vision.adjust_contrast, vision.adjust_saturation]
    for image, factor, found in zip(images, factors.tolist(), ours, strict=True):
        expected = pil(image)
        for kind in order:
            expected = steps[kind](expected, factor[kind])
        assert (found.int() - tensor(expected).int()).abs().max() <= 1
        assert (found != tensor(expected)).float().mean() < 0.02


def test_jitter_has_torchvisions_moments(images):
    g, torch_seed = generator(), 0
    factors, order = augment.draw_jitter(2000, 0.4, g)
    assert 0.6 <= factors.min() < 0.61
    assert 1.39 < factors.max() <= 1.4
    assert chisquare(np.unique(order.numpy(), axis=0, return_counts=True)[1]).pvalue > SURE
    ours = augment.color_jitter(images[:1].expand(2000, -1, -1, -1), factors, order).float().numpy()
    torch.manual_seed(torch_seed)
    one = transforms.ColorJitter(0.4, 0.4, 0.4)
    theirs = np.stack([np.array(one(pil(images[0]))) for _ in range(1000)]).astype(np.float32)
    for statistic in (np.mean, np.std):
        assert ks_2samp(statistic(ours, (1, 2, 3)), statistic(theirs, (1, 2, 3))).pvalue > SURE
    assert augment.draw_jitter(100, 3.0, g)[0].min() >= 0


def test_normalize_is_timms_and_channels_last(images):
    mean, std = (0.49, 0.48, 0.44), (0.24, 0.25, 0.26)
    x = augment.normalize(images, mean, std)
    assert x.is_contiguous(memory_format=torch.channels_last)
    one = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    torch.testing.assert_close(x, torch.stack([one(pil(image)) for image in images]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("side", [1, 7, 8, 16])
def test_cutout_is_a_clipped_square_about_a_uniform_pixel(side):
    boxes = augment.draw_squares(5000, side, (12, 9), generator())
    erased = augment.erase(torch.ones(5000, 3, 12, 9), boxes) == 0
    assert torch.equal(erased[:, 0], erased[:, 2])
    rng = np.random.default_rng(0)
    for axis, corner, length in ((2, 0, 12), (1, 1, 9)):  # as DeVries and Taylor's code has it
        centre = rng.integers(length, size=5000)
        begin, end = (np.clip(centre - side // 2 + d, 0, length) for d in (0, side))
        extent = erased[:, 0].any(axis).sum(1).numpy()
        assert ks_2samp(extent, end - begin).pvalue > SURE
        assert chisquare(np.bincount(boxes[:, 0, corner].numpy() + side // 2, minlength=length)).pvalue > SURE


@pytest.mark.parametrize(("probability", "most"), [(1.0, 1), (0.3, 1), (1.0, 3)])
def test_random_erasing_has_timms_law_of_area_and_place(probability, most):
    count, size = 3000, (32, 24)
    ours = augment.erase(torch.ones(count, 3, *size), augment.draw_erasing(count, probability, most, size, generator()))
    random.seed(0)
    theirs = RandomErasing(probability, max_count=most, device="cpu")(torch.ones(count, 3, *size))
    for measure in (
        lambda x: (x[:, 0] == 0).sum((1, 2)),
        lambda x: (x[:, 0] == 0).any(2).float().argmax(1),
        lambda x: (x[:, 0] == 0).any(1).float().argmax(1),
        lambda x: (x[:, 0] == 0).any(2).sum(1),
    ):
        assert ks_2samp(measure(ours), measure(theirs)).pvalue > SURE


def test_erasing_fills_with_what_is_given():
    x, boxes = torch.zeros(2, 3, 5, 5), torch.tensor([[[1, 2, 3, 2], [0, 0, 0, 0]]]).expand(2, 2, 4)
    fill = torch.randn(2, 2, 3, 5, 5, generator=generator())
    out = augment.erase(x, boxes, fill)
    assert torch.equal(out[:, :, 1:4, 2:4], fill[:, 0, :, 1:4, 2:4])
    assert out.count_nonzero() == 2 * 3 * 6
    assert augment.erase(x, boxes, fill[..., :1, :1])[0, 1].unique().tolist() == sorted(
        {0.0, float(fill[0, 0, 1, 0, 0])}
    )


POLICIES = {
    "cifar10": v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10, fill=FILL),
    "imagenet": v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET, fill=FILL),
    "randaugment": v2.RandAugment(fill=FILL),
    "trivial": v2.TrivialAugmentWide(fill=FILL),
}


@pytest.mark.parametrize("name", POLICIES)
def test_policy_draws_torchvisions_operations_as_often(name, monkeypatch):
    """The operations that reach the image, with their magnitudes, counted on both sides."""
    one, called = POLICIES[name], []
    monkeypatch.setattr(
        one,
        "_apply_image_or_video_transform",
        lambda image, op, magnitude, **_: called.append((op, magnitude)) or image,
    )
    torch.manual_seed(0)
    blank = torch.zeros(3, 32, 32, dtype=torch.uint8)
    for _ in range(4000):
        one(blank)
    policy = Policy(name, (32, 32))
    operations, magnitudes = policy.draw(20_000, generator())
    drawn = zip(operations.flatten().tolist(), magnitudes.flatten().tolist(), strict=True)
    ours = [(policy.operations[op], round(magnitude, 4)) for op, magnitude in drawn if op]
    theirs = [(op, round(magnitude, 4)) for op, magnitude in called if op != "Identity"]
    kinds = sorted(set(ours))
    assert set(theirs) <= set(kinds)
    expected = np.array([ours.count(kind) for kind in kinds]) / 5
    found = np.array([theirs.count(kind) for kind in kinds])
    spread = np.sqrt(expected * 1.2)  # of the difference of two counts, one of them a fifth of five times as many
    assert (np.abs(found - expected) < 5 * spread + 3).all()
    assert math.isclose(len(theirs) / 4000, len(ours) / 20_000, rel_tol=0.05)


@pytest.mark.parametrize("name", POLICIES)
def test_policy_on_a_batch_does_what_torchvision_does_to_each_image(images, name):
    one, policy = POLICIES[name], Policy(name, (32, 32))
    operations, magnitudes = policy.draw(64, generator())
    ours = policy.apply(images, operations, magnitudes)
    assert not torch.equal(ours, images)
    for image, ops, strengths, found in zip(images, operations.tolist(), magnitudes.tolist(), ours, strict=True):
        x = image.permute(2, 0, 1)
        for op, magnitude in zip(ops, strengths, strict=True):
            x = one._apply_image_or_video_transform(
                x, policy.operations[op], magnitude, interpolation=one.interpolation, fill=one._fill
            )
        assert torch.equal(found, x.permute(1, 2, 0))


def test_an_empty_batch_goes_through():
    none = torch.zeros(0, 8, 8, 3, dtype=torch.uint8)
    g = generator()
    cropped = augment.crop_padded(none, augment.draw_offsets(0, 2, g), 2)
    boxes = augment.draw_boxes(0, (8, 8), (0.1, 1), (0.5, 2), g)
    small = augment.resized_crop(cropped, boxes, (4, 4), torch.zeros(0, dtype=torch.bool))
    coloured = augment.color_jitter(small, *augment.draw_jitter(0, 0.4, g))
    x = augment.erase(augment.normalize(coloured, (0.5,) * 3, (0.2,) * 3), augment.draw_squares(0, 2, (4, 4), g))
    assert x.shape == (0, 3, 4, 4)


def test_crop_reflects_as_torchvision_pads():
    from torchvision.transforms.functional import crop, pad

    images = torch.randint(256, (9, 5, 7, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    offsets = augment.draw_offsets(9, 4, torch.Generator().manual_seed(1))
    found = augment.crop_padded(images, offsets, 4, "reflect")
    for image, (top, left), cut in zip(images, offsets.tolist(), found, strict=True):
        padded = pad(image.permute(2, 0, 1), [4, 4, 4, 4], padding_mode="reflect")
        assert torch.equal(crop(padded, top, left, 5, 7).permute(1, 2, 0), cut)
