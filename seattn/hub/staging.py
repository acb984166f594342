"""Build the folder of a Hub repository: weights, config, card, recipe, rows, golden tensors, checksums.

The weights are those of this package, or of a run of `seattn train` or `seattn finetune`. The same input gives the same
bytes.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils._validators import validate_repo_id
from timm.models import PretrainedCfg, get_pretrained_cfg

from seattn.core.errors import UserError
from seattn.core.files import whole_folder
from seattn.core.records import read_json
from seattn.hub.card import picture_name, render_card
from seattn.hub.facts import Facts, packaged_facts, run_facts
from seattn.hub.golden import GOLDEN, write_golden
from seattn.hub.picture import render_picture
from seattn.hub.sums import SUMS, check_sums, files_of, render_sums
from seattn.hub.verification import CARD
from seattn.models import _pretrained, models_with_weights
from seattn.models.checkpoints.folder import render_config
from seattn.models.listing import check_name
from seattn.models.load import CONFIG, DIR_PREFIX, WEIGHTS, load_model, model_temperature


def stage(name: str, folder: Path, *, run: Path | None = None, org: str | None = None) -> tuple[Path, ...]:
    """Write the repository of the weights `name` into `folder`, completely or not at all.

    Args:
        name: `arch.tag` of weights in this package; with `run`, the name that the run's weights get.
        folder: new, empty, or an earlier stage of the same name, which is replaced.
        run: folder of a finished run.
        org: owner of the repository, for the card.

    Returns:
        The files, relative to `folder`.

    Raises:
        UserError: if there are no such weights, or `folder` holds anything else or cannot be written.
    """
    if run is None:
        name = packaged_name(name)
        facts, weights = packaged_facts(name), _packaged_weights(name)
    else:
        check_repository_name(name)
        facts, weights = run_facts(run, name), run / WEIGHTS
    check_replaceable(folder, name, _staged_name)
    with whole_folder(folder) as part:
        _fill(part, facts, weights, name if run is None else f"{DIR_PREFIX}{run}", org)
        files = tuple(Path(file) for file in sorted([*files_of(part), SUMS]))
    return files


def packaged_name(name: str) -> str:
    """`arch.tag` of the weights in this package that `name`, with or without a tag, means.

    Raises:
        UserError: if there are none.
    """
    check_name(name)
    cfg = get_pretrained_cfg(name)
    full_name = name if cfg is None or not cfg.tag or "." in name else f"{name}.{cfg.tag}"
    if full_name not in models_with_weights():
        raise UserError(
            f"{name} has no weights in this package; the models with weights are {', '.join(models_with_weights())}"
        )
    return full_name


def _packaged_weights(name: str) -> Path:
    path = _pretrained.WEIGHTS / _pretrained.weight_index()[name]["file"]
    if not path.is_file():
        raise UserError(f"{path} is missing: this package was installed without its weights; install it again")
    _pretrained.check_pinned(name, path, "install seattn again")
    return path


def check_repository_name(name: str) -> None:
    """Raise UserError unless `name` can be the name of a repository, after its owner's."""
    try:
        validate_repo_id(f"org/{name}")
    except HFValidationError as error:
        raise UserError(f"{name!r} cannot be the name of a repository on the Hub: {error}") from error


def check_replaceable(folder: Path, name: str, staged_name: Callable[[Path], str | None]) -> None:
    """Refuse a folder that holds anything but an unchanged stage of `name`: it will be replaced.

    Args:
        staged_name: returns the name of the stage that a folder holds, or None if it holds another thing.

    Raises:
        UserError: saying what the folder holds, or that it cannot be read.
    """
    try:
        _check_replaceable(Path(os.path.realpath(folder)), name, staged_name)
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror}; give another folder") from error


def _check_replaceable(folder: Path, name: str, staged_name: Callable[[Path], str | None]) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder} is a file; give a folder")
    if not any(folder.iterdir()):
        return
    if (staged := staged_name(folder)) is None:
        raise UserError(f"{folder} is not empty and is not an earlier stage; give another folder")
    if staged != name:
        raise UserError(f"{folder} holds {staged}, not {name}; give another folder")
    try:
        check_sums(folder)
    except UserError as error:
        raise UserError(
            f"{folder} was changed after staging, so it is not replaced; delete it or give another: {error}"
        ) from error


def _staged_name(folder: Path) -> str | None:
    if not (folder / SUMS).is_file() or not (folder / "results.json").is_file():
        return None
    return str(read_json(folder / "results.json").get("name"))


def _fill(folder: Path, facts: Facts, weights: Path, spec: str, org: str | None) -> None:
    model: Any = load_model(spec)
    cfg = PretrainedCfg(**model.pretrained_cfg)
    shutil.copyfile(weights, folder / WEIGHTS)
    (folder / CONFIG).write_text(render_config(model, facts.name), encoding="utf-8")
    (folder / CARD).write_text(render_card(facts, cfg, org, model_temperature(model)), encoding="utf-8")
    if facts.classes is not None:
        (folder / picture_name(facts.name)).write_text(render_picture(facts.classes), encoding="utf-8")
    facts.recipe.write(folder / "recipe.yaml")
    (folder / "results.json").write_text(facts.results(), encoding="utf-8")
    write_golden(folder / GOLDEN, model)
    (folder / SUMS).write_text(render_sums(folder), encoding="utf-8")
