"""The conditions of a row: the commit that ran, marked where files of the package differ from it."""

import subprocess

import pytest

from seattn.core import rows

GIT = ("git", "-c", "user.name=x", "-c", "user.email=x@example.org")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A committed checkout that the rows are measured in."""
    for name in ("seattn/core/rows.py", "kernels/seattn_kernels/gate.py", "tests/test_gate.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("before\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*GIT, *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(rows, "__file__", str(tmp_path / "seattn" / "core" / "rows.py"))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "mark"),
    [("seattn/core/rows.py", "+"), ("kernels/seattn_kernels/gate.py", "+"), ("tests/test_gate.py", "")],
)
def test_a_commit_is_marked_where_the_package_or_a_kernel_differs_from_it(checkout, name, mark):
    head = subprocess.run([*GIT, "rev-parse", "--short", "HEAD"], cwd=checkout, capture_output=True, text=True)
    assert rows._commit() == head.stdout.strip()
    (checkout / name).write_text("after\n")
    assert rows._commit() == head.stdout.strip() + mark


def test_an_installed_package_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "__file__", str(tmp_path / "seattn" / "core" / "rows.py"))
    assert rows._commit() == ""
