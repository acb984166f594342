"""Studies: variants of one recipe trained with several seeds, compared on what is held out of train.

A study's folder, OUT/<study>/, holds rows.csv (one row a run), table.md, table.csv, plot.png and plot.svg; its runs lie
beside it in OUT, and studies that ask for one recipe share its run.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from seattn.core.errors import UserError
from seattn.core.files import atomic_path, require_writable, write_text
from seattn.experiments.study.design import Ablation, check_seeds, load_ablation
from seattn.experiments.study.results import StudyResult, StudyRow, read_rows, rows_of, summarize_study, write_rows
from seattn.experiments.study.runs import StudyRun, runs_of

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
    """Train the runs of a study that are missing, and say what all of them say.

    Args:
        study: a file of `zoo_configs/ablations/`.
        data_dir: as `train` takes it; its test split is not read. None trains nothing: the result is of what is there.
        out: where the runs and the study's folder are.
        device: "cuda", "cpu", …; by default CUDA where there is one.
        skip_bad: leave unreadable images out, with a warning that counts them.
        jobs: runs at once, each in a process with its share of the threads.
        seeds: instead of the file's.
        rows: CSV of runs that were trained elsewhere; none of those is trained again.

    Returns:
        The result; a run that failed is named in it, and the others went on.

    Raises:
        UserError: for a bad study, rows or data, or a run in `out` that is another one; nothing is trained then.
    """
    from seattn.models.listing import check_name

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
        raise UserError(f"no such file: {rows}; rows are those of runs trained elsewhere")
    elsewhere = [] if rows is None else rows_of(ablation, read_rows(rows))
    known = {row.run for row in [*rows_of(ablation, read_rows(_folder(out, ablation) / "rows.csv")), *elsewhere]}
    failures = {}
    if data_dir is not None:
        wanted = [run for run in runs if run.name not in known]
        failures = _train(runs, wanted, data_dir, out, device=device, skip_bad=skip_bad, jobs=jobs)
    result = summarize_study(ablation, _collect(ablation, runs, elsewhere, out))
    if result.rows:
        _write(result, _folder(out, ablation))
    state = {(run.variant, run.recipe.seed): run.state() for run in runs}
    missing = tuple((variant, seed, state[variant, seed]) for variant, seed, _ in result.missing)
    return replace(result, missing=missing, failures=tuple(failures.items()))


def _folder(out: Path, ablation: Ablation) -> Path:
    return out / ablation.name


def _train(
    runs: Sequence[StudyRun],
    wanted: Sequence[StudyRun],
    data_dir: Path,
    out: Path,
    *,
    device: str | None,
    skip_bad: bool,
    jobs: int,
) -> dict[str, str]:
    from seattn.core.device import torch_device
    from seattn.data.folders import find_split, has_split
    from seattn.experiments.study.workers import How, Watch, train_missing

    if not has_split(data_dir, "train"):
        find_split(data_dir, "train")  # raises, and says what is missing
    if device is not None:
        torch_device(device)
    require_writable(out)
    return train_missing(wanted, How(data_dir, device, skip_bad), jobs, Watch(runs, wanted, jobs))


def _collect(ablation: Ablation, runs: Sequence[StudyRun], elsewhere: Sequence[StudyRow], out: Path) -> list[StudyRow]:
    """All rows there are, written back; a run's own result before a row of it that was kept or given."""
    own = [run.row(ablation.name) for run in runs if run.finished()]
    folder = _folder(out, ablation)
    if not (own or elsewhere or (folder / "rows.csv").exists()):
        return []
    require_writable(folder)
    with FileLock(folder / ".lock"):  # another command may merge its rows at this moment
        merged = rows_of(ablation, [*read_rows(folder / "rows.csv"), *elsewhere, *own])
        write_rows(folder / "rows.csv", merged)
    return merged


def _write(result: StudyResult, folder: Path) -> None:
    from seattn.experiments.study.figures import plot_bytes
    from seattn.experiments.study.tables import markdown, numbers

    write_text(folder / "table.md", f"# {result.name}\n\n{markdown(result)}\n![plot](plot.svg)\n")
    write_text(folder / "table.csv", numbers(result))
    for kind in ("png", "svg"):
        with atomic_path(folder / f"plot.{kind}") as part:
            part.write_bytes(plot_bytes(result, kind))
