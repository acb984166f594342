"""SHA256SUMS of a folder for the Hub: every other file of it, in the form that `sha256sum --check` reads."""

import re
from collections.abc import Mapping
from pathlib import Path

from seattn.core.errors import UserError
from seattn.core.files import sha256

SUMS = "SHA256SUMS"
_LARGEST = 2**20  # bytes; ours have 1,000
_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


def files_of(folder: Path) -> list[str]:
    """All files under `folder` but SHA256SUMS, relative and sorted; not what begins with a dot, which the Hub adds."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    return sorted(path.as_posix() for path in found if not is_hidden(path) and path.as_posix() != SUMS)


def render_sums(folder: Path) -> str:
    """The text of SHA256SUMS for `folder`."""
    return "".join(f"{sha256(folder / name)}  {name}\n" for name in files_of(folder))


def check_sums(folder: Path, needed: tuple[str, ...]) -> int:
    """Hold that SHA256SUMS is right and of every file of `folder`; how many those are.

    Args:
        needed: files that must be there.

    Raises:
        UserError: naming the first file that is altered, missing or extra.
    """
    sums = read_sums(folder)
    found = files_of(folder)
    for name in sorted({*sums, *needed} - set(found)):
        raise UserError(f"{folder / name} is missing; get the folder from its source again")
    for name in found:
        if name not in sums:
            raise UserError(f"{folder / name} does not stand in {SUMS}; take it away, or stage the folder again")
        digest = _digest(folder / name)
        if digest != sums[name]:
            raise UserError(
                f"{folder / name} is damaged or was altered: SHA-256 {digest[:12]}…, {SUMS} has {sums[name][:12]}…; "
                "get it from its source again"
            )
    return len(found)


def read_sums(folder: Path) -> Mapping[str, str]:
    """File -> digest.

    Raises:
        UserError: if there is no SHA256SUMS, or a line of it is none, or names a path outside of the folder.
    """
    path = folder / SUMS
    try:
        if path.stat().st_size > _LARGEST:
            raise UserError(f"{path} is larger than such a list can be; get it from its source again")
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; `seattn hub stage` writes it") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8; get it from its source again") from error
    sums: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
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
        raise UserError(f"{path} is no plain file; get it from its source again")
    try:
        return sha256(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
