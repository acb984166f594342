"""The commands that train many times: `ablate` compares variants over seeds, `search` looks for the best values."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seattn.core.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from seattn.experiments.study.results import StudyResult
from rich.console import Console
from rich.text import Text

# What fits into 80 characters, by its heading here; table.md has all.
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
    study: Annotated[Path, typer.Argument(help="YAML file, for example zoo_configs/ablations/attention.yaml.")],
    data_dir: Annotated[
        Path | None, typer.Option(help="Images as DIR/train/CLASS/IMAGE; the test split is not read.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the runs and of the study's table and plot.")] = Path(
        "runs/ablations"
    ),
    device: Annotated[str | None, typer.Option(help="Where to compute: cpu or cuda.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at once, each with its share of the threads.")] = 1,
    seeds: Annotated[str | None, typer.Option(metavar="S,S,...", help="Instead of the study's: 0,1,2,3.")] = None,
    rows: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Rows of runs trained elsewhere: not trained here again.")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable images out, with a warning.")] = False,
    no_train: Annotated[
        bool, typer.Option("--no-train", "--dry-run", help="Train nothing: list what is missing, show what is there.")
    ] = False,
) -> None:
    """Compare variants of a recipe over seeds on the held-out images; the same command again goes on where it ended."""
    from rich.console import Console

    from seattn.experiments.study.ablation import ablate as run_study

    if data_dir is None and not no_train:
        raise UserError("give --data-dir, the folder of train/<class>/<image>; or --no-train to see what is there")
    chosen = None if seeds is None else _parse_seeds(seeds)
    result = run_study(
        study,
        None if no_train else data_dir,
        out,
        device=device,
        skip_bad=skip_bad,
        jobs=jobs,
        seeds=chosen,
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


def _show(console: "Console", result: "StudyResult", out: Path) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

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
        Path, typer.Argument(help="YAML file, for example zoo_configs/searches/se_resnet20_cifar.cifar10.yaml.")
    ],
    data_dir: Annotated[Path, typer.Option(help="Images as DIR/train/CLASS/IMAGE; validation/… or a part held out.")],
    trials: Annotated[
        int, typer.Option(min=1, help="How many are to have ended, those of former calls included, failed ones not.")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder of the study; runs/search/<name> by default.")] = None,
    sampler: Annotated[str | None, typer.Option(help="tpe, random or grid, instead of the file's.")] = None,
    pruner: Annotated[str | None, typer.Option(help="median, hyperband or none, instead of the file's.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the sampler, instead of the file's.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes at once.")] = 1,
    timeout: Annotated[
        float | None, typer.Option(min=0, metavar="MIN", help="Stop after so many minutes, at the end of an epoch.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Where to compute: cpu or cuda.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable images out, with a warning.")] = False,
) -> None:
    """Search for a recipe's best values on the held-out images; run it again to go on, also after a kill."""
    from seattn.experiments.search.driver import run_search
    from seattn.experiments.search.space import load_search

    chosen = load_search(file, sampler=sampler, pruner=pruner, seed=seed)
    done = run_search(
        *(chosen, data_dir, out),
        trials=trials,
        jobs=jobs,
        device=device,
        minutes=timeout,
        skip_bad=skip_bad,
    )
    if done.best is not None:
        from seattn.experiments.search.trials import best_table

        console = Console()
        console.print(best_table(chosen, done.trials))
        note = f"Its held-out score is the best of {len(done.trials)} on the same images: optimistic."
        console.print(Text(f"best recipe: {done.best}\n{note}"), soft_wrap=True)
