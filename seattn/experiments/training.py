"""`seattn train --no-test` of one recipe in a process of its own: how studies and searches train."""

from dataclasses import dataclass
from pathlib import Path

from seattn.core.child import Child
from seattn.core.recipe import Recipe
from seattn.training.run_dir import Row, read_summary


@dataclass(frozen=True)
class Options:
    """The options that all trainings of one study or search share.

    Args:
        data_dir: the folder of the images.
        device: "cuda", "cpu", …; None: CUDA where there is one.
        skip_bad: leave unreadable images out.
        threads: the number of threads of each training.
    """

    data_dir: Path
    device: str | None
    skip_bad: bool
    threads: int


class Training(Child):
    """A training of `recipe` in `folder`, where it resumes after the last finished epoch.

    The process holds the lock of `folder` (`seattn.core.files.is_locked`) as long as it lives. Its output is in
    train.log.
    """

    def __init__(self, recipe: Recipe, folder: Path, options: Options) -> None:
        self.folder = folder
        self._reported = 0
        resumes = (folder / "last.pth.tar").exists()
        if not resumes:
            recipe.write(folder / "recipe.yaml")
        arguments = ["train", str(folder / "recipe.yaml"), "--data-dir", str(options.data_dir), "--out", str(folder)]
        arguments += ["--no-test"]
        arguments += ["--resume"] if resumes else []
        arguments += [] if options.device is None else ["--device", options.device]
        arguments += ["--skip-bad"] if options.skip_bad else []
        super().__init__(arguments, folder / "train.log", threads=options.threads)

    def new_epochs(self) -> list[Row]:
        """The rows of summary.csv that were added since the last call; the first call returns all rows."""
        rows = read_summary(self.folder)[self._reported :]
        self._reported += len(rows)
        return rows
