"""The command `search`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text


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
        from seattn._search_results import best_table

        console = Console()
        console.print(best_table(chosen, done.trials))
        note = f"Its held-out score is the best of {len(done.trials)} on the same images: optimistic."
        console.print(Text(f"best recipe: {done.best}\n{note}"), soft_wrap=True)
