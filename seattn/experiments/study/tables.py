"""The table of a study: as text for the terminal and Markdown, as numbers for CSV; and the notes below it."""

from collections.abc import Sequence

from seattn.core.records import csv_text
from seattn.evaluation.statistics import SeedDifference
from seattn.experiments.study.results import StudyResult, VariantResult

_NONE = "-"
_DIFFERENCE = ("pairs", "difference", "difference_std", "difference_low", "difference_high", "p", "p_holm")
_BOOTSTRAP = ("bootstrap_low", "bootstrap_high")
_NUMBERS = ("kind", "name", "n", "mean", "std", "low", "high", *_DIFFERENCE, *_BOOTSTRAP, "params", "minutes", "epochs")
_POINTS = ("points", "points_interval", "p", "p_holm", "bootstrap")
COLUMNS = ("variant", "n", "accuracy", "accuracy_interval", *_POINTS, "parameters", "minutes", "epochs")
DIFFERENCE_COLUMNS = ("points", "95 % t interval", "p", "p (Holm)", "bootstrap")


def points(value: float, *, sign: bool = True) -> str:
    """A number with two digits, with the minus sign of typography."""
    return (f"{value:+.2f}" if sign else f"{value:.2f}").replace("-", "−")


def _headings(result: StudyResult) -> tuple[str, ...]:
    """The headings of the table's columns."""
    against = (f"points against {result.reference}", *DIFFERENCE_COLUMNS[1:])
    return ("variant", "n", "held-out top-1 %", "95 % t interval", *against, "parameters", "minutes", "epochs")


def cells(variant: VariantResult) -> tuple[str, ...]:
    """A variant's line of the table; `COLUMNS` names the cells."""
    s = variant.summary
    accuracy = (_NONE,) * 2 if s is None else (_spread(s.mean, s.std), _interval(s.low, s.high, sign=False))
    return (
        variant.name,
        "0" if s is None else str(s.n),
        *accuracy,
        *difference_cells(variant.against),
        _NONE if variant.params is None else f"{variant.params:,}",
        _NONE if variant.minutes is None else f"{variant.minutes:.1f}",
        _NONE if variant.epochs is None else str(variant.epochs),
    )


def difference_cells(d: SeedDifference | None) -> tuple[str, ...]:
    """The cells below `DIFFERENCE_COLUMNS`."""
    if d is None:
        return (_NONE,) * len(DIFFERENCE_COLUMNS)
    return (
        points(d.mean),
        _interval(d.low, d.high),
        p_value(d.p),
        p_value(d.p_holm),
        _interval(d.boot_low, d.boot_high),
    )


def p_value(p: float | None) -> str:
    """A p value with two digits, or "<0.001"."""
    return _NONE if p is None else "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _spread(mean: float, std: float | None) -> str:
    return points(mean, sign=False) + ("" if std is None else f" ± {points(std, sign=False)}")


def _interval(low: float | None, high: float | None, *, sign: bool = True) -> str:
    return _NONE if low is None or high is None else f"{points(low, sign=sign)} to {points(high, sign=sign)}"


def notes(result: StudyResult) -> list[str]:
    """The notes that a reader of the table needs."""
    lines = []
    results = [row.result for row in result.rows]
    if results:
        parts = sorted({f"{r.n:,} held-out images of {r.dataset or 'the data'}" for r in results})
        several = _seeds(result) > 1
        spread = "; ± is the sample standard deviation over the n seeds" if several else ""
        test = "; p is of the paired t-test, p (Holm) is corrected for the number of comparisons in this table"
        lines.append(
            f"On {' or '.join(parts)}, the same for every seed{spread}. "
            f"Differences are paired by seed{test if several else ''}."
        )
        if len(parts) > 1:
            lines.append("These runs were not scored on the same images: their differences are no comparison.")
        lines.append(_note_on_n(result))
        if len({r.dtype for r in results}) > 1:
            lines.append(_note_on_dtypes(result))
        where = sorted({r.conditions.machine for r in results})
        torch = sorted({r.conditions.torch for r in results})
        differ = "; they differ, and so do the minutes" if len(where) > 1 else ""
        lines.append(
            "Minutes: the median run's time in training steps, whatever else the machine did. "
            f"{' / '.join(where)}{differ}; torch {', '.join(torch)}."
        )
    if result.missing:
        lines.append(f"Missing: {'; '.join(f'{name}, seed {seed}' for name, seed, _ in result.missing)}.")
    return lines


def _seeds(result: StudyResult) -> int:
    return max((v.summary.n for v in result.variants if v.summary is not None), default=0)


def _note_on_n(result: StudyResult) -> str:
    n = _seeds(result)
    if n == 1:
        widest = max(100 * (row.result.top1_high - row.result.top1_low) / 2 for row in result.rows)
        return (
            "One seed: there is no t interval and no p, and another seed could give another difference. The number of "
            f"images alone makes an accuracy uncertain by up to ± {points(widest, sign=False)} points (95 %, Wilson)."
        )
    return (
        f"With n = {n} the bootstrap interval lies between the smallest and the largest of {n} differences and is too "
        "narrow; the t interval assumes that the differences are normal. An interval that contains 0 is no proof that "
        "there is no difference."
    )


def _note_on_dtypes(result: StudyResult) -> str:
    """The dtypes of the runs, and the pairs whose two runs computed in different ones."""
    runs = {(row.variant, row.result.seed): row.result.dtype for row in result.rows}
    seeds = {dtype: sorted({seed for (_, seed), own in runs.items() if own == dtype}) for dtype in runs.values()}
    parts = [f"{dtype} (seed{'s' * (len(own) > 1)} {', '.join(map(str, own))})" for dtype, own in sorted(seeds.items())]
    mixed = [
        f"{name}, seed {seed}" for (name, seed), own in runs.items() if runs.get((result.reference, seed), own) != own
    ]
    if not mixed:
        return f"Trained in {' and '.join(parts)}: the two runs of each pair in the same dtype."
    return f"Trained in {' and '.join(parts)}. The dtypes of these pairs differ, too: {'; '.join(mixed)}."


def markdown(result: StudyResult) -> str:
    """The table, the effects where there are some, and the notes."""
    blocks = [_lines(_headings(result), [cells(variant) for variant in result.variants])]
    if result.effects:
        heading = ("main effect", "n", *DIFFERENCE_COLUMNS)
        body = [
            (e.name, str(e.difference.n if e.difference else 0), *difference_cells(e.difference))
            for e in result.effects
        ]
        blocks += ["Mean over all levels of the other factors, of each seed:", _lines(heading, body)]
    return "\n\n".join([*blocks, *notes(result)]) + "\n"


def _lines(heading: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(heading)
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (heading, rule, *body)
    )


def numbers(result: StudyResult) -> str:
    """CSV text with a line for each variant and each effect; an unknown number is an empty cell."""
    rows: list[tuple[object, ...]] = [_NUMBERS]
    for v in result.variants:
        s = v.summary
        own = (0, *(None,) * 4) if s is None else (s.n, s.mean, s.std, s.low, s.high)
        rows.append(("variant", v.name, *own, *_difference_numbers(v.against), v.params, v.minutes, v.epochs))
    for e in result.effects:
        rows.append(("effect", e.name, *(None,) * 5, *_difference_numbers(e.difference), *(None,) * 3))
    return csv_text(rows)


def _difference_numbers(d: SeedDifference | None) -> tuple[float | None, ...]:
    if d is None:
        return (0, *(None,) * 8)
    return d.n, d.mean, d.std, d.low, d.high, d.p, d.p_holm, d.boot_low, d.boot_high
