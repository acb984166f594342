"""Files are whole or absent; links are written through, and what is not a plain file is refused."""

import errno
import os
import re
import stat
from pathlib import Path

import pytest
from safetensors import SafetensorError

from seattn.__main__ import main
from seattn.core.errors import UserError
from seattn.core.files import (
    atomic_path,
    not_found,
    require_replaceable,
    require_writable,
    require_writable_file,
    size,
    whole_files,
    whole_folder,
    write_text,
)


def test_a_link_stays_and_its_target_is_written(tmp_path):
    (tmp_path / "real").mkdir()
    for name, target in (("to_file", "real/there"), ("to_nothing", "real/new/later"), ("to_link", "to_file")):
        (tmp_path / name).symlink_to(target)
    (tmp_path / "real" / "there").write_text("before")
    for name in ("to_nothing", "to_link"):
        require_writable_file(tmp_path / name)
        write_text(tmp_path / name, name)
        assert (tmp_path / name).is_symlink()
    assert (tmp_path / "real" / "there").read_text() == "to_link"
    assert (tmp_path / "real" / "new" / "later").read_text() == "to_nothing"
    (tmp_path / "folder").symlink_to("real/runs")
    require_writable(tmp_path / "folder")
    assert (tmp_path / "real" / "runs").is_dir()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "it is a folder; give the path of a file"),
        (os.mkfifo, "it is a device or a pipe; give the path of a file"),
        (lambda path: path.symlink_to("/dev/null"), "it is a device or a pipe"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    ],
    ids=["folder", "pipe", "link to a device", "loop"],
)
def test_what_is_no_plain_file_is_refused_and_stays(tmp_path, make, message):
    path = tmp_path / "out.json"
    make(path)
    before = path.lstat()
    for write in (require_writable_file, lambda path: write_text(path, "text")):
        with pytest.raises(UserError, match=re.escape(f"cannot write {path}: {message}")):
            write(path)
    after = path.lstat()  # its time of reading may differ: following a link reads it
    for field in ("st_mode", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns"):
        assert getattr(after, field) == getattr(before, field), field
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("command", ["evaluate se_resnet20_cifar --data-dir d --out", "profile resnet20_cifar --plot"])
def test_a_command_does_not_replace_a_device(fails, command, tmp_path):
    (tmp_path / "x.png").symlink_to("/dev/full")
    assert "it is a device or a pipe" in fails(*command.split(), tmp_path / "x.png")
    assert Path("/dev/full").is_char_device()


def test_an_output_folder_that_is_a_device_is_refused(capsys):
    assert main(["demo", "--out", "/dev/full"]) == 2
    assert "cannot write to /dev/full: it is not a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("No space left on device")]
)
@pytest.mark.parametrize("open_whole", [atomic_path, whole_folder, whole_files])
@pytest.mark.parametrize("name", ["out", "new/folder/out"])
def test_a_full_disk_leaves_the_old_and_nothing_half_written(tmp_path, error, open_whole, name):
    path = tmp_path / name
    with pytest.raises(UserError, match=f"cannot write (to )?{path}: No space left on device"), open_whole(path):
        raise error
    assert list(tmp_path.iterdir()) == []


def test_files_are_replaced_together_or_not_at_all(tmp_path):
    (tmp_path / "a").write_text("old")
    (tmp_path / "b").mkdir()

    def replace_both():
        with whole_files(tmp_path) as part:
            (part / "a").write_text("new")
            (part / "b").write_text("new")

    with pytest.raises(UserError, match=f"cannot write {tmp_path}/b: it is a folder"):
        replace_both()
    assert (tmp_path / "a").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_folder_is_replaced_with_its_old_files_only_when_the_new_one_is_whole(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "old").write_text("old")

    def replace_folder(error=None):
        with whole_files(tmp_path) as part:
            (part / "package" / "inner").mkdir(parents=True)
            (part / "package" / "inner" / "new").touch(mode=0o600)
            (part / "beside").write_text("new")
            if error:
                raise error

    with pytest.raises(UserError, match="No space left on device"):
        replace_folder(OSError(errno.ENOSPC, "No space left on device"))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["old", "package"]
    replace_folder()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["beside", "inner", "new", "package"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "package" / "inner" / "new").stat().st_mode) == 0o666 & ~umask
    assert size(tmp_path / "package") == 0
    assert size(tmp_path) == size(tmp_path / "beside") == 3


def test_only_our_folders_may_be_replaced(tmp_path):
    folder = tmp_path / "package"
    for _ in range(2):  # absent, then empty
        require_replaceable(folder, lambda folder: False)
        folder.mkdir(exist_ok=True)
    (folder / "file").write_text("")
    require_replaceable(folder, lambda folder: True)
    (tmp_path / "link").symlink_to(folder)
    for path in (folder, tmp_path / "link"):
        with pytest.raises(UserError, match=f"cannot write {path}: a folder that something else made is there"):
            require_replaceable(path, lambda folder: False)
    with pytest.raises(UserError, match="file: it is not a folder; give another path"):
        require_replaceable(folder / "file", lambda folder: True)
    with pytest.raises(UserError, match=r"cannot write to .*file: "):
        require_replaceable(folder / "file" / "package", lambda folder: True)


def test_a_check_before_the_work_leaves_no_folder(tmp_path):
    require_writable(tmp_path / "new" / "folder", keep=False)
    require_writable_file(tmp_path / "new" / "file")
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_found_is_described(tmp_path):
    for name, target in (("nowhere", "gone"), ("loop", "loop")):
        (tmp_path / name).symlink_to(target)
    (tmp_path / "file").write_text("")
    for path, message in (
        ("none", f"no such run folder: {tmp_path}/none"),
        ("file/below", f"no such run folder: {tmp_path}/file/below"),
        ("file", f"{tmp_path}/file is a file, not a run folder"),
        (".", f"{tmp_path} is a folder, not a run folder"),
        ("nowhere", "is a link to gone, which cannot be followed: No such file"),
        ("loop", "is a link to loop, which cannot be followed: Too many levels"),
        ("a" * 300, "File name too long"),
    ):
        assert message in not_found("run folder", tmp_path / path)
    assert not_found("file", Path("/dev/null")) == "/dev/null is a device or a pipe, not a file"


def test_the_longest_names_can_be_written(tmp_path):
    name = "ü" * 125 + ".json"  # 255 bytes
    write_text(tmp_path / name, "text")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with pytest.raises(UserError, match="File name too long"):
        write_text(tmp_path / f"{name}l", "text")
