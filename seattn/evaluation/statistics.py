"""What differs between two classifiers on the same images, and which classes are taken for each other.

Shapes: N images, K classes, R and S runs.

Means, spreads and paired differences of a few values a variant; arrays in, numbers out.
What three seeds can tell: the t interval is 4.3 standard errors wide on each side, so a difference shows at p < 0.05
only if it is 2.5 times the differences' own standard deviation; and a bootstrap interval of three pairs cannot leave
their least and largest, so it is too narrow. A wide interval is no proof that there is no difference.
All intervals are of 95 %; what too few values cannot give is None.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.stats import binomtest

if TYPE_CHECKING:
    from seattn.evaluation.scoring import FloatArray


_DRAWS = 10_000


@dataclass(frozen=True)
class ImageDifference:
    """`after` minus `before`, shares of N images that are right, with a 95 % interval.

    Where both are single runs, `gained` and `lost` count the images that changed, `p` is McNemar's exact one, and the
    interval is the exact one of the same law: it contains 0 where p is above 0.05. Elsewhere a bootstrap over images.
    """

    n: int
    before: float
    after: float
    low: float
    high: float
    gained: int | None = None
    lost: int | None = None
    p: float | None = None

    @property
    def change(self) -> float:
        """After minus before."""
        return self.after - self.before


@dataclass(frozen=True)
class Pair:
    """Two classes by index, `first` < `second`, and how often each is taken for the other."""

    first: int
    second: int
    forward: float
    backward: float

    @property
    def total(self) -> float:
        """Both directions."""
        return self.forward + self.backward


def paired_difference(before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]) -> ImageDifference:
    """R runs before and S after on N images: before (R, N), after (S, N) say which are right.

    Raises:
        ValueError: if they are not of the same images, or of none.
    """
    n = before.shape[1]
    if after.shape[1] != n or n == 0:
        raise ValueError(f"before and after must be of the same images, at least one, got {n} and {after.shape[1]}")
    steps = after.mean(0) - before.mean(0)  # (N,)
    means = float(before.mean()), float(after.mean())
    if len(before) > 1 or len(after) > 1:
        return ImageDifference(n, *means, *_bootstrap(steps))
    gained, lost = int((steps > 0).sum()), int((steps < 0).sum())
    return ImageDifference(n, *means, *_exact_interval(gained, lost, n), gained, lost, mcnemar(gained, lost))


def _bootstrap(steps: "FloatArray") -> tuple[float, float]:
    """Of the mean of (N,): the images are drawn again. Steps take few values, so a draw is one of a multinomial law."""
    values, counts = np.unique(steps, return_counts=True)
    draws = np.random.default_rng(0).multinomial(len(steps), counts / len(steps), size=_DRAWS) @ values / len(steps)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def _exact_interval(gained: int, lost: int, n: int) -> tuple[float, float]:
    """Of those that changed, the share that gained has Clopper and Pearson's interval."""
    changed = gained + lost
    if not changed:
        return 0.0, 0.0
    share = binomtest(gained, changed).proportion_ci(method="exact")
    return changed * (2 * float(share.low) - 1) / n, changed * (2 * float(share.high) - 1) / n


def mcnemar(gained: int, lost: int) -> float:
    """McNemar's exact two-sided p: of the images that changed, half would have gained by chance."""
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def confused_pairs(confusion: npt.NDArray[np.floating]) -> list[Pair]:
    """All pairs that are ever confused in counts (K, K) by [true][predicted], the most frequent first."""
    k = len(confusion)
    pairs = [
        Pair(first, second, float(confusion[first, second]), float(confusion[second, first]))
        for first in range(k)
        for second in range(first + 1, k)
    ]
    return sorted((pair for pair in pairs if pair.total), key=lambda pair: -pair.total)


def changed_pairs(before: npt.NDArray[np.floating], after: npt.NDArray[np.floating]) -> list[tuple[Pair, Pair]]:
    """Every pair whose total differs, (before, after), the largest change first."""
    k = len(before)
    found = []
    for first in range(k):
        for second in range(first + 1, k):
            pair = [
                Pair(first, second, float(one[first, second]), float(one[second, first])) for one in (before, after)
            ]
            if pair[0].total != pair[1].total:
                found.append((pair[0], pair[1]))
    return sorted(found, key=lambda both: -abs(both[1].total - both[0].total))


def hardest_class(confusion: npt.NDArray[np.floating]) -> int:
    """The class of the lowest recall in counts (K, K), among those that have images."""
    support = confusion.sum(1)
    recall = np.where(support > 0, np.diag(confusion) / np.maximum(support, 1), np.inf)
    return int(recall.argmin())


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
