"""Build the folder of a Hub repository: weights, config, card, recipe, rows, golden tensors, checksums.

The weights of this package, or of a run of `seattn train` or `seattn finetune`. The same input gives the same bytes.
"""

import shutil
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils._validators import validate_repo_id
from timm.models import PretrainedCfg, get_pretrained_cfg

from seattn.core.errors import UserError
from seattn.core.files import sha256, whole_folder
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
from seattn.models.load import CONFIG, DIR_PREFIX, WEIGHTS, load_model


def stage(name: str, folder: Path, *, run: Path | None = None, org: str | None = None) -> tuple[Path, ...]:
    """Write the repository of the weights `name` into `folder`, whole or not at all; its files, relative to it.

    Args:
        name: `arch.tag` of weights in this package; with `run`, what the run's weights are to be called.
        folder: new, empty, or an earlier stage of the same name, which is replaced.
        run: folder of a finished run.
        org: whose repository it is for, as the card says.

    Raises:
        UserError: if there are no such weights, or `folder` holds anything else.
    """
    if run is None:
        name = packaged_name(name)
        facts, weights = packaged_facts(name), _packaged_weights(name)
    else:
        _check_repository_name(name)
        facts, weights = run_facts(run, name), run / WEIGHTS
    _check_free(folder.resolve(), name)
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
    if name not in models_with_weights():
        cfg = get_pretrained_cfg(name)
        found = f"{name}.{cfg.tag}" if cfg is not None and cfg.tag and "." not in name else name
        if found not in models_with_weights():
            raise UserError(
                f"{name} has no weights in this package; those that have: {', '.join(models_with_weights())}"
            )
        return found
    return name


def _packaged_weights(name: str) -> Path:
    entry = _pretrained.weight_index()[name]
    path = _pretrained.WEIGHTS / entry["file"]
    if not path.is_file():
        raise UserError(f"{path} is not there: this package came without its weights; install it again")
    if sha256(path) != entry["sha256"]:
        raise UserError(f"{path} is not the file that this version of seattn ships for {name}; install it again")
    return path


def _check_repository_name(name: str) -> None:
    try:
        validate_repo_id(f"org/{name}")
    except HFValidationError as error:
        raise UserError(f"{name!r} cannot be the name of a repository on the Hub: {error}") from error


def _check_free(folder: Path, name: str) -> None:
    """Refuse a folder that holds anything but an unaltered stage of `name`: it will be replaced."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder} is a file; give a folder")
    if not any(folder.iterdir()):
        return
    if not (folder / SUMS).is_file() or not (folder / "results.json").is_file():
        raise UserError(f"{folder} is not empty and no earlier stage; give another folder")
    before = read_json(folder / "results.json").get("name")
    if before != name:
        raise UserError(f"{folder} holds {before}, not {name}; give another folder")
    try:
        check_sums(folder, ())
    except UserError as error:
        raise UserError(f"{folder} is not as it was staged, and is left alone: {error}; or delete it") from error


def _fill(folder: Path, facts: Facts, weights: Path, spec: str, org: str | None) -> None:
    model: Any = load_model(spec)
    cfg = PretrainedCfg(**model.pretrained_cfg)
    shutil.copyfile(weights, folder / WEIGHTS)
    (folder / CONFIG).write_text(render_config(model, facts.name), encoding="utf-8")
    (folder / CARD).write_text(render_card(facts, cfg, org), encoding="utf-8")
    if facts.classes is not None:
        (folder / picture_name(facts.name)).write_text(render_picture(facts.classes), encoding="utf-8")
    facts.recipe.write(folder / "recipe.yaml")
    (folder / "results.json").write_text(facts.results(), encoding="utf-8")
    write_golden(folder / GOLDEN, model)
    (folder / SUMS).write_text(render_sums(folder), encoding="utf-8")
