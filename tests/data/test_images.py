"""One reader for every command: 16-bit and float images, pages, EXIF orientation, files that are no images."""

import os

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import seattn.data.images
from seattn.core.errors import UserError
from seattn.data.images import read_image

EIGHT_BITS = np.random.default_rng(0).integers(256, size=(9, 7), dtype=np.uint8)
SIXTEEN_BITS = EIGHT_BITS.astype(np.uint16) * 257


@pytest.fixture(autouse=True)
def _pages_unsaid():
    seattn.data.images._pages_reported[0] = 0


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize(
    ("levels", "suffix"),
    [
        (SIXTEEN_BITS, ".png"),
        (SIXTEEN_BITS, ".tif"),
        (SIXTEEN_BITS.astype(">u2"), ".tif"),
        (SIXTEEN_BITS.astype(np.int32), ".tif"),
        (SIXTEEN_BITS, ".pgm"),
        ((EIGHT_BITS / 255).astype(np.float32), ".tif"),
    ],
    ids=["png", "tiff", "tiff, big-endian", "32-bit tiff", "pgm", "float"],
)
def test_an_image_of_more_than_8_bits_is_its_8_bit_twin(tmp_path, levels, suffix, mode):
    Image.fromarray(EIGHT_BITS).save(tmp_path / "8.png")
    Image.fromarray(levels).save(tmp_path / f"16{suffix}")
    with Image.open(tmp_path / f"16{suffix}") as image:
        assert image.mode in ("I", "F") or image.mode.startswith("I;16")
    twin, image = read_image(tmp_path / "8.png", mode), read_image(tmp_path / f"16{suffix}", mode)
    assert image.mode == twin.mode == mode
    assert np.array_equal(np.asarray(image), np.asarray(twin))


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (
            np.array([[0.0, 255.0]], np.float32),
            "floating-point grey levels range from 0 to 255, and 0 to 1 can be read",
        ),
        (np.array([[0.0, np.nan]], np.float32), "floating-point grey levels range from nan to nan"),
        (
            np.array([[-1000, 3000]], np.int32),
            "integer grey levels range from -1000 to 3000, and 0 to 65535 can be read",
        ),
    ],
    ids=["float", "nan", "signed"],
)
def test_levels_outside_their_range_are_refused_by_name(tmp_path, levels, message):
    Image.fromarray(levels).save(tmp_path / "x.tif")
    with pytest.raises(UserError, match=rf"cannot read image {tmp_path}/x.tif: its {message}"):
        read_image(tmp_path / "x.tif")


def test_of_several_pages_the_first_is_read_and_that_is_said_once(tmp_path, caplog):
    pages = [Image.new("RGB", (4, 4), colour) for colour in ("red", "green", "blue")]
    for name in ("a.tif", "b.gif", "c.png"):
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
        assert read_image(tmp_path / name).getpixel((0, 0)) == (255, 0, 0)
    (record,) = caplog.records
    assert f"{tmp_path}/a.tif has several pages or frames; the first one is read" in record.getMessage()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_unless_asked_otherwise(tmp_path, orientation):
    stored, exif = Image.fromarray(EIGHT_BITS), Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "x.png", exif=exif)
    with Image.open(tmp_path / "x.png") as image:
        upright = ImageOps.exif_transpose(image)
    assert np.array_equal(read_image(tmp_path / "x.png", "L"), upright)
    assert upright.size == ((7, 9) if orientation < 5 else (9, 7))
    assert np.array_equal(read_image(tmp_path / "x.png", "L", exif=False), EIGHT_BITS)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_data_do_not_hide_the_pixels(tmp_path):
    Image.fromarray(EIGHT_BITS).save(tmp_path / "x.png", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert np.array_equal(read_image(tmp_path / "x.png", "L"), EIGHT_BITS)


def test_a_path_that_is_no_image_file_is_named_with_the_reason(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.png").symlink_to("gone.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "text.png").write_text("text")
    for name, reason in {
        "folder": "it is a folder; give the image files in it",
        "link.png": "it is a link to gone.png, which does not exist",
        "pipe.png": "it is not a plain file",
        "text.png": "cannot identify image file",
    }.items():
        with pytest.raises(UserError, match=rf"cannot read image {tmp_path}/{name}: {reason}"):
            read_image(tmp_path / name)
    with pytest.raises(UserError, match=r"no such image file: nowhere\.png"):
        read_image(tmp_path.relative_to(tmp_path) / "nowhere.png")


def test_a_name_that_is_not_utf_8_is_shown_with_a_replacement_character(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.png"
    with open(path, "wb") as file:
        Image.fromarray(EIGHT_BITS).save(file, "png")
    name = os.fsdecode(path)
    assert np.array_equal(read_image(type(tmp_path)(name), "L"), EIGHT_BITS)
    with open(path, "wb") as file:
        file.write(b"text")
    with pytest.raises(UserError, match="caf\ufffd\\.png: cannot identify") as caught:
        read_image(type(tmp_path)(name))
    str(caught.value).encode()


def test_a_grey_net_and_a_grey_set_agree_on_the_shape(tmp_path):
    images = seattn.data.images.ImageSet(torch.from_numpy(EIGHT_BITS)[None, :, :, None], torch.tensor([0]), ("a",))
    assert np.array_equal(images.read(0, "L"), EIGHT_BITS)
    assert images.read(0, "RGBA").getpixel((0, 0)) == (*[int(EIGHT_BITS[0, 0])] * 3, 255)


def test_a_damaged_image_of_any_format_is_named(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    for suffix in ("qoi", "tif", "png", "jpg", "webp", "avif"):
        path = tmp_path / f"cut.{suffix}"
        Image.fromarray(pixels).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(UserError, match=rf"cannot read image {tmp_path}/cut.{suffix}: \S"):
            read_image(path)


def test_a_file_is_not_given_to_a_decoder_of_other_kinds(tmp_path, monkeypatch):
    """PostScript in a file .png would start Ghostscript."""
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    path = tmp_path / "x.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n")
    with pytest.raises(UserError, match="cannot identify image file"):
        read_image(path)
    assert not (tmp_path / "started").exists()
