"""Means, spreads and paired differences of a few values a variant; arrays in, numbers out.

What three seeds can tell: the t interval is 4.3 standard errors wide on each side, so a difference shows at p < 0.05
only if it is 2.5 times the differences' own standard deviation; and a bootstrap interval of three pairs cannot leave
their least and largest, so it is too narrow. A wide interval is no proof that there is no difference.
All intervals are of 95 %; what too few values cannot give is None.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
_SAME = 1e-9  # points: differences of differences below it are rounding, and a t-test would take them for precision
_RESAMPLES = 9999


@dataclass(frozen=True)
class Summary:
    """`n` values: their mean, sample standard deviation (n - 1), and t interval of the mean."""

    n: int
    mean: float
    std: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class SeedDifference(Summary):
    """`n` paired differences.

    Args:
        p: of the paired t-test, n - 1 degrees of freedom; None also where all differences are equal.
        p_holm: p adjusted for the comparisons it was made with; None until `with_holm`.
        boot_low, boot_high: percentile bootstrap over the pairs.
    """

    p: float | None
    boot_low: float | None
    boot_high: float | None
    p_holm: float | None = None


def summarize(values: Sequence[float]) -> Summary:
    """The summary of one or more values."""
    x = np.asarray(values, dtype=float)  # (n,)
    if len(x) < 2:
        return Summary(len(x), float(x.mean()), None, None, None)
    mean, std = float(x.mean()), float(x.std(ddof=1))
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(x) - 1)) * std / len(x) ** 0.5
    return Summary(len(x), mean, std, mean - half, mean + half)


def compare(values: Sequence[float], reference: Sequence[float]) -> SeedDifference:
    """`values` minus `reference`, pair by pair.

    Raises:
        ValueError: unless both have the same length, of one or more.
    """
    if len(values) != len(reference) or not values:
        raise ValueError(f"values must pair with the reference's, got {len(values)} and {len(reference)}")
    return difference(np.asarray(values, dtype=float) - np.asarray(reference, dtype=float))


def difference(values: Sequence[float] | np.ndarray[tuple[int], np.dtype[np.float64]]) -> SeedDifference:
    """What differences that are already taken say."""
    d = np.asarray(values, dtype=float)  # (n,)
    some = summarize(d.tolist())
    if np.ptp(d) < _SAME:  # one pair, or all alike: no spread to measure an error by
        std = None if some.std is None else 0.0
        return SeedDifference(some.n, some.mean, std, None, None, None, None, None)
    boot = stats.bootstrap(
        *((d,), np.mean),
        n_resamples=_RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        random_state=np.random.default_rng(0),  # the same values, the same interval
    ).confidence_interval
    p = float(stats.ttest_1samp(d, 0.0).pvalue)  # of differences: the paired t-test
    return SeedDifference(some.n, some.mean, some.std, some.low, some.high, p, float(boot.low), float(boot.high))


def with_holm(differences: Sequence[SeedDifference | None]) -> list[SeedDifference | None]:
    """The same with `p_holm`: Holm's step-down adjustment over those that have a p."""
    adjusted = iter(holm([d.p for d in differences if d is not None and d.p is not None]))
    return [d if d is None or d.p is None else replace(d, p_holm=next(adjusted)) for d in differences]


def holm(p: Sequence[float]) -> list[float]:
    """Each p times the number of hypotheses not yet rejected before it, never falling, at most 1; Holm (1979)."""
    result, highest = [0.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, (len(p) - rank) * p[place]))
        result[place] = highest
    return result
