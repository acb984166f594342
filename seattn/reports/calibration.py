"""Find the temperature of a run or a model directory on the images that it held out, and store it there."""

from pathlib import Path

from seattn.core.errors import UserError, counted
from seattn.core.files import is_locked, not_found, require_writable_file
from seattn.data.folders.files import list_files
from seattn.data.folders.splits import find_split
from seattn.evaluation.probabilities.temperature import Calibration, calibrate, store_temperature
from seattn.models.load import CONFIG, DIR_PREFIX, load_model
from seattn.reports.runs import SPLITS, Split, as_trained, check_held_out, open_split, read_run

_SUMS = "SHA256SUMS"  # of a folder that is staged for the Hub


def calibrate_folder(
    folder: Path,
    data_dir: Path,
    split: str = "held-out",
    *,
    batch_size: int = 256,
    workers: int = 2,
    device: str = "cpu",
    progress: bool = False,
) -> tuple[Calibration, Split, str]:
    """Write the temperature into config.json of `folder`, the folder of a run or a model directory.

    Args:
        data_dir: the images that the run was trained on; for a model directory, a folder with a validation split.
        split: "held-out" for the images that the run chose by, "validation" or "test".
        progress: show a progress bar on stderr.

    Returns:
        The temperature with the scores before and after, the images, and a warning or "".

    Raises:
        UserError: if no images were held out, no temperature fits, or a file is missing or cannot be written.
    """
    if split not in SPLITS:
        raise UserError(f"--split must be one of {', '.join(SPLITS)}, got {split!r}")
    if not folder.is_dir():
        raise UserError(f"{not_found('folder', folder)}; give the folder of a run, or one with {CONFIG} and weights")
    if (folder / _SUMS).exists():
        raise UserError(f"{folder} is staged for the Hub, with checksums; calibrate the run, and stage it again")
    if is_locked(folder):
        raise UserError(f"another process trains in {folder}; wait until it ends")
    run = read_run(folder) if (folder / "summary.csv").is_file() else None
    images = _without_run(folder, data_dir, split) if run is None else open_split([run], data_dir, split)
    model = load_model(f"{DIR_PREFIX}{folder}", device=device)
    require_writable_file(folder / CONFIG)
    pictures = images.images if run is None else as_trained(run, images.images)
    done = calibrate(model, pictures, batch_size=batch_size, workers=workers, progress=progress)
    warnings = ["" if run is None or split != "held-out" else check_held_out(run, done.before)]
    if done.after.ece > done.before.ece:
        warnings.append(
            "The loss is smaller with this temperature, but the calibration error on these "
            f"{counted(done.before.n, 'image')} is larger; more held-out images give a better temperature."
        )
    store_temperature(folder, done.temperature)
    return done, images, " ".join(filter(None, warnings))


def _without_run(folder: Path, data_dir: Path, split: str) -> Split:
    """The images for a folder that does not say which images were held out: a split that is a folder of its own."""
    name = "validation" if split == "held-out" else split
    try:
        images = list_files(find_split(data_dir, name))
    except UserError as error:
        raise UserError(
            f"{folder} is not the folder of a run, so the images that were held out are not known: {error}"
        ) from error
    return Split(f"{counted(len(images), 'image')}: the {name} split in {data_dir}", images)
