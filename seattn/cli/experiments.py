"""The commands that train many times: `ablate` compares variants over seeds, `search` looks for the best values."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seattn.cli import ListSearches, ListStudies, SkipBad, TrainingDevice
from seattn.core.errors import UserError

if TYPE_CHECKING:
    from seattn.experiments.study.results import StudyResult

# The columns of table.md that fit into 80 characters, by their heading here.
_HEADINGS = {
    "variant": "variant",
    "n": "n",
    "top-1 %": "accuracy",
    "points": "points",
    "95 % interval": "points_interval",
    "p (Holm)": "p_holm",
    "parameters": "parameters",
    "min": "minutes",
}


def ablate(
    study: Annotated[Path, typer.Argument(help="YAML file, or the name of a study of this package: attention.")],
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Images as DIR/train/CLASS/IMAGE; the test split is not read.", show_default="none, with --no-train"
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the runs and of the study's table and plot.")] = Path(
        "runs/ablations"
    ),
    device: TrainingDevice = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, each with its share of the threads.")] = 1,
    seeds: Annotated[
        str | None, typer.Option(metavar="S,S,...", help="Seeds, for example 0,1,2,3.", show_default="the study's")
    ] = None,
    rows: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV", help="Rows of runs trained elsewhere, which are not repeated.", show_default="none"
        ),
    ] = None,
    skip_bad: SkipBad = False,
    no_train: Annotated[
        bool, typer.Option("--no-train", "--dry-run", help="Train nothing: list missing runs, show finished ones.")
    ] = False,
    show_list: ListStudies = False,
) -> None:
    """Compare variants of a recipe over seeds on held-out images; the same command resumes a study."""
    from seattn.core.recipe import find_config
    from seattn.experiments.study.ablation import ablate as run_study

    if data_dir is None and not no_train:
        raise UserError("give --data-dir, the folder of train/<class>/<image>; or --no-train to see the finished runs")
    result = run_study(
        find_config(study, "ablations"),
        None if no_train else data_dir,
        out,
        device=device,
        skip_bad=skip_bad,
        jobs=jobs,
        seeds=None if seeds is None else _parse_seeds(seeds),
        rows=rows,
    )
    _show(Console(), result, out)
    if result.failures:
        by_reason: dict[str, list[str]] = {}
        for title, reason in result.failures:
            by_reason.setdefault(reason, []).append(title)
        named = "; ".join(f"{', '.join(titles)}: {reason}" for reason, titles in by_reason.items())
        failed, all_runs = len(result.failures), len(result.rows) + len(result.missing)
        raise UserError(f"{failed} of {all_runs} runs failed: {named}")


def _parse_seeds(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--seeds takes whole numbers with commas between, for example 0,1,2; got {text!r}") from None


def _show(console: Console, result: "StudyResult", out: Path) -> None:
    from seattn.experiments.study.tables import COLUMNS, cells, difference_cells, notes

    for variant, seed, done in result.missing:
        console.print(Text(f"missing: {variant}, seed {seed}{f', {done}' if done else ''}"), soft_wrap=True)
    if not result.rows:
        return
    title = Text(f"{result.name}: points against {result.reference}", style="bold")
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 0))
    for heading in _HEADINGS:
        if heading == "variant":
            table.add_column(heading, overflow="fold")
        else:
            table.add_column(heading, justify="right", no_wrap=True)
    for variant_result in result.variants:
        line = dict(zip(COLUMNS, cells(variant_result), strict=True))
        table.add_row(*(Text(line[column]) for column in _HEADINGS.values()))
    console.print(table)
    for effect in result.effects:
        mean, interval, p, *_ = difference_cells(effect.difference)
        console.print(Text(f"{effect.name}: {mean} points ({interval}), p {p}"), soft_wrap=True)
    console.print(Text("\n".join(notes(result)), style="dim"))
    console.print(Text(f"table and plot: {out / result.name}"), soft_wrap=True)


def search(
    file: Annotated[
        Path, typer.Argument(help="YAML file, or the name of a search of this package: se_resnet20_cifar.cifar10.")
    ],
    data_dir: Annotated[
        Path, typer.Option(help="Images as DIR/train/CLASS/IMAGE; DIR/validation/… or a part of train is held out.")
    ],
    trials: Annotated[
        int, typer.Option(min=1, help="Trials to complete, with those of earlier calls, without failed ones.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the study.", show_default="runs/search/NAME of the file")
    ] = None,
    sampler: Annotated[
        Literal["tpe", "random", "grid"] | None,
        typer.Option(help="How values are chosen.", show_default="the file's"),
    ] = None,
    pruner: Annotated[
        Literal["median", "hyperband", "none"] | None,
        typer.Option(help="How bad trials are ended early.", show_default="the file's"),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the sampler.", show_default="the file's")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Trials at a time, each in a process.")] = 1,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="MIN", help="Stop after so many minutes; the next call resumes.", show_default="none"
        ),
    ] = None,
    device: TrainingDevice = None,
    skip_bad: SkipBad = False,
    show_list: ListSearches = False,
) -> None:
    """Search for the best values of a recipe on held-out images; the same command resumes a search."""
    if find_spec("optuna") is None:
        raise UserError("seattn search needs optuna; pip install 'seattn[search]'")
    from seattn.core.recipe import find_config
    from seattn.experiments.search.driver import run_search
    from seattn.experiments.search.results import best_table
    from seattn.experiments.search.space import load_search

    space = load_search(find_config(file, "searches"), sampler=sampler, pruner=pruner, seed=seed)
    done = run_search(space, data_dir, out, trials=trials, jobs=jobs, device=device, minutes=timeout, skip_bad=skip_bad)
    if done.best is not None:
        console = Console()
        console.print(best_table(space, done.trials))
        note = f"Its held-out score is the best of {len(done.trials)} on the same images: optimistic."
        console.print(Text(f"best recipe: {done.best}\n{note}"), soft_wrap=True)
