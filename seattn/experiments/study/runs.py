"""The runs of a study on disk: which are finished, which have begun, which are being trained.

The name of a run's folder follows from its recipe (`run_name`), so that studies with a recipe in common share its run.
"""

from dataclasses import dataclass
from pathlib import Path

from seattn.core.errors import UserError
from seattn.core.files import is_locked
from seattn.core.recipe import Recipe, load_recipe
from seattn.experiments.study.design import Ablation, run_name
from seattn.experiments.study.results import StudyRow, read_result
from seattn.training.run_dir import read_summary


@dataclass(frozen=True)
class StudyRun:
    """One variant with one seed, which is the recipe's, and the folder of the run."""

    variant: str
    recipe: Recipe
    folder: Path

    @property
    def name(self) -> str:
        """The folder's name, which no other recipe or seed has."""
        return self.folder.name

    @property
    def title(self) -> str:
        """The run's name for people."""
        return f"{self.variant}, seed {self.recipe.seed}"

    @property
    def epochs(self) -> int:
        """The number of epochs, unless the run stops early."""
        return self.recipe.run_epochs

    def finished(self) -> bool:
        """Whether the run has its result."""
        return (self.folder / "result.json").exists()

    def epochs_done(self) -> int:
        """The number of finished epochs of an unfinished run."""
        return len(read_summary(self.folder))

    def is_locked(self) -> bool:
        """Whether a process trains the run now."""
        return is_locked(self.folder)

    def state(self) -> str:
        """How far an unfinished run is, for people; "" before its first epoch."""
        done = self.epochs_done()
        parts = [f"{done} of {self.epochs} epochs" if done else "", "in training now" if self.is_locked() else ""]
        return ", ".join(part for part in parts if part)

    def check(self) -> None:
        """Check that the folder holds this run or none.

        Raises:
            UserError: if it holds another recipe's run, or a file in it cannot be read.
        """
        if not (self.finished() or (self.folder / "last.pth.tar").exists()):
            return
        if run_name(load_recipe(self.folder / "recipe.yaml")) != self.name:
            raise UserError(f"{self.folder} holds a run of another recipe than its name says; move it away")
        if self.finished():
            self.row("")

    def row(self, study: str) -> StudyRow:
        """The row of a finished run.

        Raises:
            UserError: if its result is damaged, or is not of the held-out images.
        """
        return StudyRow(study, self.variant, self.name, read_result(self.folder / "result.json"))


def runs_of(ablation: Ablation, out: Path) -> list[StudyRun]:
    """Every run of the study, in the order in which they are trained."""
    return [StudyRun(variant, recipe, out / run_name(recipe)) for variant, recipe in ablation.runs()]
