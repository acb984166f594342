"""Build the folder of a Hugging Face Space: the app for one net, its requirements, its page and examples.

The Space holds the weights of a run or a folder; it loads those of this package and of the Hub by name. The format of
the front matter: https://huggingface.co/docs/hub/spaces-config-reference.
"""

import os
import re
import shutil
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path

import timm
from huggingface_hub import RepoCard, SpaceCardData
from jinja2 import Environment, StrictUndefined, Template
from packaging.version import Version

from seattn.core.errors import UserError
from seattn.core.files import whole_folder
from seattn.data.images import read_image
from seattn.data.samples import example_files, load_sample, write_examples
from seattn.data.transforms import class_names
from seattn.hub.staging import check_replaceable, check_repository_name, packaged_name
from seattn.hub.sums import SUMS, files_of, render_sums
from seattn.models import models_with_weights
from seattn.models.checkpoints.config import read_config
from seattn.models.listing import our_models
from seattn.models.load import CONFIG, DIR_PREFIX, HUB_PREFIX, WEIGHTS, load_model

CARD = "README.md"
LARGEST_SIDE = 1024  # pixels of an example
_BOUNDED = ("torch", "torchvision", "timm", "gradio", "grad-cam")  # the packages besides seattn with which the app runs
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


def stage_space(
    spec: str, folder: Path, *, name: str | None = None, examples: Path | None = None, license_id: str | None = None
) -> tuple[Path, ...]:
    """Write the Space of the net `spec` into `folder`, completely or not at all.

    Args:
        spec: weights of this package, the folder of a run or another model directory, or hf-hub:org/name.
        folder: new, empty, or an earlier stage of the same Space, which is replaced.
        name: the name of the Space; by default that of the net or its folder.
        examples: folder of images to choose from, which are made smaller and lose their EXIF data (the place of a
            photograph). By default images of CIFAR-10 for a net with its classes, and none for others.
        license_id: the Hub's name of a licence, such as "mit"; None is apache-2.0 for weights of this package, and no
            licence for others.

    Returns:
        The files, relative to `folder`.

    Raises:
        UserError: if the net cannot be loaded, an argument is wrong, `folder` holds anything else or cannot be
            written, or gradio is not installed, whose version the Space must name.
    """
    gradio = _installed("gradio")
    if license_id is not None and not _LICENSE.fullmatch(license_id):
        raise UserError(f"{license_id!r} is not a licence of the Hub; they are written as apache-2.0 or mit")
    if spec in models_with_weights() or spec.partition(".")[0] in our_models():
        spec = packaged_name(spec)
        license_id = license_id or "apache-2.0"
    directory = None if spec.startswith(HUB_PREFIX) or timm.is_model(spec) else Path(spec.removeprefix(DIR_PREFIX))
    name = name or (
        spec.rpartition("/")[2].partition("@")[0] if directory is None else Path(os.path.realpath(directory)).name
    )
    check_repository_name(name)
    check_replaceable(folder, name, _staged_name)
    images = None if examples is None else example_files(examples)
    net = load_model(spec)
    of_sample = images is None and set(load_sample("cifar10").class_names) <= set(class_names(net))
    others = [other for other in models_with_weights() if other != spec] if spec in models_with_weights() else []
    models = {name: None if directory else spec, **{other: other for other in others}}
    front_matter = SpaceCardData(
        title=name,
        emoji="🔎",
        colorFrom="blue",
        colorTo="gray",
        sdk="gradio",
        sdk_version=gradio,
        python_version=f"{sys.version_info.major}.{sys.version_info.minor}",
        app_file="app.py",
        pinned=False,
        license=license_id,
        models=[spec.removeprefix(HUB_PREFIX).partition("@")[0]] if spec.startswith(HUB_PREFIX) else None,
        short_description=f"Classify images with {name}"[:60],
    )
    readme = _template("README.md.j2").render(
        front_matter=front_matter.to_yaml(),
        name=name,
        repo=name,
        what=_what(spec, directory, len(class_names(net))),
        weights=directory is not None,
        of_sample=of_sample,
    )
    with whole_folder(folder) as part:
        (part / CARD).write_text(readme, encoding="utf-8")
        (part / "app.py").write_text(
            _template("app.py.j2").render(name=name, models=models, of_sample=of_sample), encoding="utf-8"
        )
        (part / "requirements.txt").write_text(requirements(), encoding="utf-8")
        if directory is not None:
            (part / "model").mkdir()
            for file in (CONFIG, WEIGHTS):
                shutil.copyfile(directory / file, part / "model" / file)
        if of_sample or images:
            (part / "examples").mkdir()
            _write_examples(part / "examples", images)
        (part / SUMS).write_text(render_sums(part), encoding="utf-8")
        staged = tuple(Path(file) for file in sorted([*files_of(part), SUMS]))
    return staged


def requirements() -> str:
    """The text of requirements.txt: this version of seattn, and libraries up to the next major version."""
    lines = [f"seattn[app,explain]=={version('seattn')}"]
    for package in _BOUNDED:
        try:
            installed = Version(version(package))
        except PackageNotFoundError:  # seattn asks for it, with its own bounds
            continue
        lines.append(f"{package}>={installed.base_version},<{installed.major + 1}")
    return "\n".join(lines) + "\n"


def is_released() -> bool:
    """Whether this version of seattn can be on PyPI: it is no development version."""
    return not Version(version("seattn")).is_devrelease


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError as error:
        raise UserError(
            f'a Space names the version of {package}, which is not installed: pip install "seattn[app]"'
        ) from error


def _staged_name(folder: Path) -> str | None:
    """The title of the Space that was staged in `folder`; None if none was."""
    if not (folder / SUMS).is_file() or not (folder / CARD).is_file() or not (folder / "app.py").is_file():
        return None
    try:
        card = RepoCard.load(folder / CARD, ignore_metadata_errors=True)
    except (OSError, ValueError):
        return None
    return str(card.data.get("title")) if card.data.get("sdk") == "gradio" else None


def _what(spec: str, directory: Path | None, classes: int) -> str:
    if directory is not None:
        return f"a net `{read_config(directory / CONFIG)['architecture']}` of {classes} classes"
    return f"the weights `{spec.removeprefix(HUB_PREFIX)}` of {classes} classes"


def _write_examples(folder: Path, images: list[Path] | None) -> None:
    if images is None:
        write_examples(folder)
        return
    for number, path in enumerate(images, 1):
        image = read_image(path)
        image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem)[:60]
        image.save(folder / f"{number:02}-{stem}.jpg", quality=90)


@cache
def _template(name: str) -> Template:
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["literal"] = _literal
    text = (files(__package__) / "templates" / "space" / name).read_text(encoding="utf-8")
    return environment.from_string(text)


def _literal(text: str) -> str:
    """A Python string in double quotes."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
