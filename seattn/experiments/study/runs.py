"""The runs of a study on disk: which are finished, which have begun, which a process is at.

A run's folder is `run_name` of its recipe, so studies that ask for one recipe share its run. Beside it lies
`.<run>.lock`, which the process that trains it holds; the system lets go of it when that process ends, however it ends.
"""

from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from seattn.core.errors import UserError
from seattn.core.recipe import Recipe, load_recipe
from seattn.experiments.study.design import Ablation, run_name
from seattn.experiments.study.results import StudyRow, read_result


@dataclass(frozen=True)
class StudyRun:
    """One variant with one seed (that of the recipe), and where its files are."""

    variant: str
    recipe: Recipe
    folder: Path

    @property
    def name(self) -> str:
        """The folder's, which no other recipe or seed has."""
        return self.folder.name

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.variant}, seed {self.recipe.seed}"

    @property
    def epochs(self) -> int:
        """Its length, unless it stops early."""
        return self.recipe.run_epochs

    def finished(self) -> bool:
        """Whether its result is there."""
        return (self.folder / "result.json").exists()

    def epochs_done(self) -> int:
        """Of an unfinished run."""
        try:
            return max(0, len((self.folder / "summary.csv").read_text(encoding="utf-8").splitlines()) - 1)
        except OSError:
            return 0

    def state(self) -> str:
        """How far an unfinished run is, for people; "" before its first epoch."""
        done = self.epochs_done()
        far = f"{done} of {self.epochs} epochs" if done else ""
        return ", ".join(part for part in (far, "in training now" if self.is_claimed() else "") if part)

    def lock(self) -> FileLock:
        """A new lock of the run; raises `filelock.Timeout` at once where another process holds it."""
        return FileLock(self.folder.parent / f".{self.name}.lock", blocking=False)

    def is_claimed(self) -> bool:
        """Whether a process trains it now."""
        if not (self.folder.parent / f".{self.name}.lock").exists():
            return False
        try:
            with self.lock():
                return False
        except Timeout:
            return True

    def check(self) -> None:
        """See that what the folder holds is this run.

        Raises:
            UserError: if it holds another recipe's, or what is there cannot be read.
        """
        if not (self.finished() or (self.folder / "last.pth.tar").exists()):
            return
        if run_name(load_recipe(self.folder / "recipe.yaml")) != self.name:
            raise UserError(f"{self.folder} holds a run of another recipe than its name says; move it away")
        if self.finished():
            self.row("")

    def row(self, study: str) -> StudyRow:
        """Its row, once it is finished.

        Raises:
            UserError: if its result is damaged, or not of the held-out part.
        """
        return StudyRow(study, self.variant, self.name, read_result(self.folder / "result.json"))


def runs_of(ablation: Ablation, out: Path) -> list[StudyRun]:
    """Every run of the study, in the order in which they are trained."""
    return [StudyRun(variant, recipe, out / run_name(recipe)) for variant, recipe in ablation.runs()]
