"""SHA256SUMS of a folder for the Hub: the digests of all other files, as `sha256sum --check` reads them."""

import re
from collections.abc import Mapping
from pathlib import Path

from seattn.core.errors import UserError
from seattn.core.files import sha256
from seattn.core.records import read_text

SUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


def files_of(folder: Path) -> list[str]:
    """All files under `folder` except SHA256SUMS and hidden files, which the Hub adds: relative paths, sorted."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    return sorted(path.as_posix() for path in paths if not is_hidden(path) and path.as_posix() != SUMS)


def is_hidden(path: Path) -> bool:
    """Whether a part of a relative path begins with a dot."""
    return any(part.startswith(".") for part in path.parts)


def render_sums(folder: Path) -> str:
    """The text of SHA256SUMS for `folder`."""
    return "".join(f"{sha256(folder / name)}  {name}\n" for name in files_of(folder))


def check_sums(folder: Path, required: tuple[str, ...] = ()) -> int:
    """Check that SHA256SUMS lists exactly the files of `folder`, with their digests; returns the number of files.

    Args:
        folder: the folder of a Hub repository.
        required: files that must be there.

    Raises:
        UserError: naming the first file that is damaged, missing or extra.
    """
    sums = read_sums(folder)
    names = files_of(folder)
    for name in sorted({*sums, *required} - set(names)):
        raise UserError(f"{folder / name} is missing; get the folder from its source again")
    for name in names:
        if name not in sums:
            raise UserError(f"{folder / name} is not listed in {SUMS}; remove it, or stage the folder again")
        digest = _digest(folder / name)
        if digest != sums[name]:
            raise UserError(
                f"{folder / name} is damaged or was changed: its SHA-256 is {digest[:12]}…, {SUMS} has "
                f"{sums[name][:12]}…; get it from its source again"
            )
    return len(names)


def read_sums(folder: Path) -> Mapping[str, str]:
    """File name -> digest.

    Raises:
        UserError: if SHA256SUMS cannot be read, or a line is malformed or names a path outside the folder.
    """
    path = folder / SUMS
    sums: dict[str, str] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        match = _LINE.fullmatch(line)
        name = Path(match[2]) if match else Path("..")
        if match is None or name.is_absolute() or ".." in name.parts or match[2] in sums:
            raise UserError(
                f"{path}, line {number}, is not a digest, two spaces and a file of the folder: {line[:80]!r}"
            )
        sums[match[2]] = match[1]
    return sums


def _digest(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path} is not a plain file; get it from its source again")
    try:
        return sha256(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
