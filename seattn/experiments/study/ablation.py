"""Studies: variants of one recipe are trained with several seeds and compared on images held out of the train split.

A study's folder, `OUT/<study>/`, holds rows.csv (one row a run), table.md, table.csv, plot.png and plot.svg. Its runs
are beside it in OUT, and studies with a recipe in common share the run.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from filelock import FileLock

from seattn.core.device import torch_device
from seattn.core.errors import UserError
from seattn.core.files import not_found, require_writable, write_bytes, write_text
from seattn.data.folders.splits import require_split
from seattn.experiments.study.design import Ablation, check_seeds, load_ablation
from seattn.experiments.study.figures import plot_bytes
from seattn.experiments.study.progress import Progress
from seattn.experiments.study.queue import train_runs
from seattn.experiments.study.results import StudyResult, StudyRow, read_rows, rows_of, summarize_study, write_rows
from seattn.experiments.study.runs import StudyRun, runs_of
from seattn.experiments.study.tables import markdown, numbers
from seattn.experiments.training import Options
from seattn.models.listing import check_name

OUT = Path("runs/ablations")


def ablate(
    study: Path,
    data_dir: Path | None,
    out: Path = OUT,
    *,
    device: str | None = None,
    skip_bad: bool = False,
    jobs: int = 1,
    seeds: Sequence[int] | None = None,
    rows: Path | None = None,
) -> StudyResult:
    """Train the runs of a study that are missing, and compare its variants.

    Args:
        study: a file of `zoo_configs/ablations/`.
        data_dir: the folder of the images, as for `train`; the test split is not read. None trains nothing, and the
            result is that of the finished runs.
        out: the folder of the runs and of the study's folder.
        device: "cuda", "cpu", …; by default CUDA where there is one.
        skip_bad: leave unreadable images out, with a warning that counts them.
        jobs: the number of runs that are trained at once, each in a process with its share of the threads.
        seeds: the seeds of the runs, instead of the file's.
        rows: a CSV file with rows of runs that were trained elsewhere; these runs are not trained again.

    Returns:
        The result, which names the runs that failed; a failed run does not stop the others.

    Raises:
        UserError: for a bad study, bad rows or data, or a folder in `out` with another run than its name says; nothing
            is trained then.
    """
    ablation = load_ablation(study)
    if seeds is not None:
        ablation = replace(ablation, seeds=check_seeds(list(seeds)))
    if jobs < 1:
        raise UserError(f"jobs must be 1 or more, got {jobs}")
    for recipe in ablation.variants.values():
        check_name(recipe.model)
    runs = runs_of(ablation, out)
    for run in runs:
        run.check()
    if rows is not None and not rows.exists():
        raise UserError(f"{not_found('file', rows)}; --rows takes the rows.csv of a study that was trained elsewhere")
    folder = out / ablation.name
    elsewhere = [] if rows is None else rows_of(ablation, read_rows(rows))
    known = {row.run for row in [*rows_of(ablation, read_rows(folder / "rows.csv")), *elsewhere]}
    failures: dict[str, str] = {}
    if data_dir is not None:
        require_split(data_dir, "train")
        if device is not None:
            torch_device(device)
        require_writable(out)
        wanted = [run for run in runs if run.name not in known and not run.finished()]
        options = Options(data_dir, device, skip_bad, threads=max(1, torch.get_num_threads() // jobs))
        failures = train_runs(wanted, options, jobs, Progress(runs, wanted, jobs))
    result = summarize_study(ablation, _collect_rows(ablation, runs, elsewhere, folder))
    if result.rows:
        _write(result, folder)
    state = {(run.variant, run.recipe.seed): run.state() for run in runs}
    missing = tuple((variant, seed, state[variant, seed]) for variant, seed, _ in result.missing)
    return replace(result, missing=missing, failures=tuple(failures.items()))


def _collect_rows(
    ablation: Ablation, runs: Sequence[StudyRun], elsewhere: Sequence[StudyRow], folder: Path
) -> list[StudyRow]:
    """Bring rows.csv up to date; the result of a finished run replaces an older row of that run."""
    own = [run.row(ablation.name) for run in runs if run.finished()]
    if not (own or elsewhere or (folder / "rows.csv").exists()):
        return []
    require_writable(folder)
    with FileLock(folder / ".lock"):  # another command may write its rows at this moment
        merged = rows_of(ablation, [*read_rows(folder / "rows.csv"), *elsewhere, *own])
        write_rows(folder / "rows.csv", merged)
    return merged


def _write(result: StudyResult, folder: Path) -> None:
    write_text(folder / "table.md", f"# {result.name}\n\n{markdown(result)}\n![plot](plot.svg)\n")
    write_text(folder / "table.csv", numbers(result))
    for kind in ("png", "svg"):
        write_bytes(folder / f"plot.{kind}", plot_bytes(result, kind))
