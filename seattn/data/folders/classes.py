"""Class folders: which folders are classes, and which are hidden, of a system, or runs."""

import os
from pathlib import Path

from seattn.core.errors import UserError
from seattn.core.files import printable
from seattn.data.images import SUFFIXES

# Copies, previews and waste that systems and servers put into folders; names that begin with a dot are hidden, too.
_NO_DATA = {"@eadir", "__macosx", "#recycle", "@recycle", "$recycle.bin", "#snapshot", "lost+found", "__pycache__"}
_NO_DATA |= {"system volume information", "thumbs.db", "desktop.ini"}
# A folder with two of these files is a run, a study or a search of ours, and no class.
_RUN_FILES = ("recipe.yaml", "summary.csv", "last.pth.tar", "model.safetensors", "result.json", "rows.csv", "study.db")


def class_folders(folder: Path) -> tuple[str, ...]:
    """The sorted names of the folders in `folder`, without hidden folders, system folders, and run folders of seattn.

    Raises:
        UserError: if the folder cannot be listed.
    """
    try:
        paths = [path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name)]
        return tuple(sorted(path.name for path in paths if not _holds_runs(path)))
    except OSError as error:
        raise UserError(f"cannot list the folder {printable(error.filename or folder)}: {error.strerror}") from error


def is_run(folder: Path) -> bool:
    """Whether `folder` is that of a run, a study or a search, by its files."""
    return sum((folder / name).is_file() for name in _RUN_FILES) >= 2


def _holds_runs(folder: Path, depth: int = 3) -> bool:
    """Whether `folder` is a run, or holds no image and has runs at most `depth` levels below it."""
    if is_run(folder):
        return True
    found = False
    with os.scandir(folder) as entries:
        for entry in entries:
            if Path(entry.name).suffix.lower() in SUFFIXES:
                return False
            if depth and not found and entry.is_dir() and not is_hidden(entry.name):
                found = _holds_runs(Path(entry.path), depth - 1)
    return found


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or is known to hold no data."""
    return name.startswith(".") or name.lower() in _NO_DATA
