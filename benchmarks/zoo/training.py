"""The process of one run, and the git worktree whose code it runs."""

import shutil
import subprocess
from pathlib import Path

from filelock import FileLock

from benchmarks.zoo.entries import Entry
from benchmarks.zoo.states import beside
from seattn.core.child import Child
from seattn.core.errors import UserError
from seattn.core.files import is_locked, write_text

ROOT = Path(__file__).resolve().parents[2]


class Training(Child):
    """A process that trains one run by the code of the run's own commit, at a low priority.

    Raises:
        UserError: if git cannot make the worktree of this commit.
    """

    def __init__(self, entry: Entry, data: Path, out: Path, nice: int, threads: int) -> None:
        self.entry, self.folder, self.threads = entry, out / entry.name, threads
        beside(self.folder, ".failed").unlink(missing_ok=True)
        code = code_for(self.folder, out)
        options = {
            "--data-dir": data / entry.data,
            "--out": self.folder,
            "--device": "cpu",
            "--seed": entry.seed,
            "--set": f"seattn.holdout={entry.holdout:g}",
        }
        arguments = ["train", str(code / "zoo_configs" / f"{entry.recipe}.yaml")]
        arguments += [str(part) for option in options.items() for part in option]
        if is_begun(self.folder):
            arguments.append("--resume")
        super().__init__(arguments, beside(self.folder, ".log"), threads=threads, code=code, nice=nice)

    def note_failure(self) -> bool:
        """Whether the ended process failed; the reason is then in a file beside the run."""
        reason = self.failure()
        if reason is None or is_locked(self.folder):  # locked: another command started the run at the same moment
            return False
        note_failure(self.folder, reason)
        return True


def note_failure(folder: Path, reason: str) -> None:
    """Write why the run in `folder` failed into a file beside it, for `make zoo-status`."""
    write_text(beside(folder, ".failed"), reason + "\n")


def is_begun(folder: Path) -> bool:
    """Whether the run in `folder` can be resumed."""
    return (folder / "last.pth.tar").exists()


def check_committed(entry: Entry, out: Path) -> None:
    """Refuse a run that has not begun if its recipe here is not that of HEAD, which would be trained.

    Raises:
        UserError: if it is so, or if this is no git checkout.
    """
    if not is_begun(out / entry.name) and _git(ROOT, "status", "--porcelain", "--", str(entry.path)):
        raise UserError(
            f"queue entry {entry.name}: {entry.path} has changes that are not committed, and a run trains what is "
            "committed; commit it first"
        )


def code_for(folder: Path, out: Path) -> Path:
    """The worktree whose code trains the run in `folder`: at the commit of the run's start, for a new run at HEAD.

    Raises:
        UserError: if git cannot make the worktree.
    """
    note = beside(folder, ".commit")
    with FileLock(out / "code.lock"):  # another command may make the same worktree at this moment
        if is_begun(folder) and note.exists():
            commit = note.read_text(encoding="utf-8").strip()
        else:
            commit = _git(ROOT, "rev-parse", "HEAD")
            write_text(note, commit + "\n")
        worktree = out / "code" / commit[:12]
        if worktree.is_dir() and _is_incomplete(worktree):
            shutil.rmtree(worktree)
        if not worktree.is_dir():
            _git(ROOT, "worktree", "prune")
            try:
                _git(ROOT, "worktree", "add", "--quiet", "--force", "--detach", str(worktree), commit)
            except UserError as error:
                free = shutil.disk_usage(out).free // 10**6
                raise UserError(f"{error}; {worktree} is for the code, and {free:,} MB are free there") from None
        return worktree


def _is_incomplete(worktree: Path) -> bool:
    """Whether files of the worktree are missing or changed: the command that made it was killed."""
    if not (worktree / ".git").is_file():  # without it, git would speak of the repository around the folder
        return True
    done = subprocess.run(["git", "-C", str(worktree), "diff", "--quiet", "HEAD"], capture_output=True, check=False)
    return done.returncode != 0


def _git(where: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(where), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        reason = next((line for line in lines if line.startswith(("fatal: ", "error: "))), lines[0])
        raise UserError(f"git {arguments[0]} failed: {reason}")
    return done.stdout.strip()
