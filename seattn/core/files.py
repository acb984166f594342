"""Files and folders that are whole or absent: written beside the target, then renamed; and locks of folders."""

import errno
import hashlib
import os
import shutil
import stat
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from seattn.core.errors import UserError, first_line


def file_target(path: Path) -> Path:
    """The plain file that writing to `path` replaces or makes: a symbolic link is followed, also one to nothing.

    Raises:
        UserError: if `path` is a folder, a device, a pipe or a link that leads back to itself.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):  # a missing folder is made later, or the file in its place named
        mode = stat.S_IFREG
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; give the path of a file") from error
    if stat.S_ISDIR(mode):
        raise UserError(f"cannot write {path}: it is a folder; give the path of a file")
    if not stat.S_ISREG(mode):
        raise UserError(f"cannot write {path}: it is a device or a pipe; give the path of a file")
    return Path(os.path.realpath(path))


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the body succeeds, else remove it.

    A symbolic link stays, and its target is written.

    Raises:
        UserError: if the folder cannot be made or written to, if `path` is not a plain file, or if the disk is full.
    """
    target = file_target(path)
    try:
        with _made(target.parent):
            handle, name = tempfile.mkstemp(dir=target.parent, prefix=_hidden(target), suffix=".part")
            os.close(handle)
            part = Path(name)
            try:
                yield part
                _give_usual_permissions(part)
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot write {path}: {system_reason(error)}") from error


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make `folder` and its parents; if the body fails, those of them that are new and empty are removed."""
    missing = _missing(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        _remove_empty(missing)
        raise


def _missing(folder: Path) -> list[Path]:
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _remove_empty(folders: Iterable[Path]) -> None:
    for path in folders:
        with suppress(OSError):  # it was not made, or holds something by now
            path.rmdir()


def system_reason(error: BaseException) -> str:
    """Why the system refused to read or write, in its own words, such as "No space left on device"."""
    return getattr(error, "strerror", None) or first_line(error)


def describe_system_error(error: OSError | SafetensorError) -> str:
    """The reason and the file of an error of the system, such as a full disk or a folder that may not be read."""
    names = [getattr(error, "filename", None), getattr(error, "filename2", None)]
    files = " to ".join(str(name) for name in names if name is not None)
    if not files and getattr(error, "errno", None) == errno.ENOSPC:
        files = "the output or a temporary file"
    return f"{system_reason(error)}: {files}" if files else system_reason(error)


def _hidden(path: Path) -> str:
    """The beginning of a temporary file's name: short, because the longest names have 255 bytes."""
    return f".{path.name[:40]}."


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all; bytes of names that are not UTF-8 are replaced."""
    with atomic_path(path) as part:
        part.write_bytes(printable(text).encode())  # the same line ends on every system


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all."""
    with atomic_path(path) as part:
        part.write_bytes(content)


def not_found(what: str, path: Path) -> str:
    """Why there is no `what` at `path`: nothing is there, or something else, or a link that leads nowhere."""
    shown = printable(path)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if os.path.islink(path):
            return f"{shown} is a link to {printable(os.readlink(path))}, which cannot be followed: {error.strerror}"
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        return f"no such {what}: {shown}" if missing else f"cannot read {shown}: {error.strerror}"
    kind = "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "device or a pipe"
    article = "an" if what[0] in "aeiou" else "a"
    return f"{shown} is a {kind}, not {article} {what}"


def printable(name: str | Path) -> str:
    """A name of a file as valid Unicode: a byte that is not UTF-8 becomes the replacement character."""
    return str(name).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def is_one_line(text: str) -> bool:
    """Whether a text has no control character, line separator or half of a surrogate pair: it can be shown as a line.

    Unlike `str.isprintable`, it allows the spaces and joiners of all languages.
    """
    return not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text)


def require_writable(folder: Path, *, keep: bool = True) -> None:
    """Make `folder` and prove that a file can be written there, before any long work starts.

    Args:
        keep: False removes the new folders again, so that work that fails later leaves no empty folder.

    Raises:
        UserError: if the folder or a file in it cannot be written.
    """
    made: list[Path] = []
    try:
        made = _missing(folder)
        Path(os.path.realpath(folder)).mkdir(parents=True, exist_ok=True)  # also the target of a link to nothing
        with tempfile.TemporaryFile(dir=folder):
            pass
    except FileExistsError as error:
        raise UserError(
            f"cannot write to {folder}: it is not a folder; give a folder that can be written to"
        ) from error
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; give a folder that can be written to") from error
    finally:
        _remove_empty([] if keep else made)


def require_writable_file(path: Path) -> None:
    """Prove that the file `path` can be written, before any long work starts.

    Raises:
        UserError: if `path` is not a plain file, or its folder cannot be written.
    """
    require_writable(file_target(path).parent, keep=False)


def require_replaceable(folder: Path, is_ours: Callable[[Path], bool]) -> None:
    """Prove that a folder can be written as `folder`, before any long work starts.

    Args:
        is_ours: whether an existing folder, which is not empty, may be removed.

    Raises:
        UserError: if something else is there, or the folder around it cannot be written.
    """
    target = Path(os.path.realpath(folder))
    if os.path.lexists(target) and not target.is_dir():
        raise UserError(f"cannot write {folder}: it is not a folder; give another path")
    require_writable(target.parent, keep=False)
    try:
        if target.is_dir() and any(target.iterdir()) and not is_ours(target):
            raise UserError(
                f"cannot write {folder}: a folder that something else made is there; remove it, or give another path"
            )
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror}; give another path") from error


def size(path: Path) -> int:
    """The bytes of a file, or of all files in a folder together."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


def sha256(path: Path) -> str:
    """The SHA-256 of the file's bytes, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside `folder`; it replaces `folder` if the body succeeds, else it is removed.

    The files in `folder` are removed once the new folder is in its place; the caller must check that they
    may be deleted.

    Raises:
        UserError: if the folder cannot be written, or the body raises an OSError.
    """
    target = Path(os.path.realpath(folder))
    try:
        with _made(target.parent):
            part = Path(tempfile.mkdtemp(dir=target.parent, prefix=_hidden(target), suffix=".part"))
            try:
                yield part
                for path in (part, *part.rglob("*")):
                    _give_usual_permissions(path)
                _replace(part, target)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot write {folder}: {system_reason(error)}") from error


@contextmanager
def whole_files(folder: Path) -> Iterator[Path]:
    """Yield a new folder inside `folder`; all its files move into `folder` if the body succeeds, else none does.

    A folder in it replaces the folder of that name, if there is one. The caller must check that this folder
    may be replaced.

    Raises:
        UserError: if the folder cannot be written, or the body raises an error of the system.
    """
    require_writable(folder, keep=False)
    try:
        with (
            _made(Path(os.path.realpath(folder))),
            tempfile.TemporaryDirectory(dir=folder, prefix=".", suffix=".part", ignore_cleanup_errors=True) as part,
        ):
            yield Path(part)
            parts = sorted(Path(part).iterdir())
            files = {path: file_target(folder / path.name) for path in parts if not path.is_dir()}
            for path in parts:
                if path.is_dir():
                    for made in (path, *path.rglob("*")):
                        _give_usual_permissions(made)
                    _replace(path, Path(os.path.realpath(folder / path.name)))
            for path, target in files.items():
                path.replace(target)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot write to {folder}: {system_reason(error)}") from error


def _give_usual_permissions(path: Path) -> None:
    """tempfile and safetensors let only their owner read what they write."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)


def _replace(part: Path, target: Path) -> None:
    if not target.exists() or not any(target.iterdir()):
        part.replace(target)
        return
    before = Path(tempfile.mkdtemp(dir=target.parent, prefix=_hidden(target), suffix=".old"))
    target.replace(before)
    try:
        part.replace(target)
    except OSError:
        before.replace(target)
        raise
    shutil.rmtree(before, ignore_errors=True)


def folder_lock(folder: Path) -> FileLock:
    """A lock for the one process that works in `folder`; the system releases it when that process ends, also by a kill.

    `acquire` waits for one second, because `is_locked` holds the lock for a moment, and then raises `filelock.Timeout`.
    """
    return FileLock(folder / ".lock", timeout=1)


def is_locked(folder: Path) -> bool:
    """Whether another process holds the lock of `folder` now."""
    if not (folder / ".lock").exists():
        return False
    try:
        with folder_lock(folder).acquire(timeout=0):
            return False
    except Timeout:
        return True
