"""The marker `cover`: `make test` runs part of the combinations of a test's parameters, `make test-slow` the others.

Under `@pytest.mark.cover(2)` the part has every pair of values of two parameters, on each device; under `cover(1)`
every value. `cover(2, "kernels")` has every pair for each value of the parameter `kernels`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations

import pytest

DEVICES = ("device", "kernel_device")
Case = tuple[tuple[str, int], ...]  # parameters with the ids of their values


def mark_the_rest_slow(items: Iterable[pytest.Item]) -> None:
    groups = defaultdict(list)
    for item in items:
        marker = item.get_closest_marker("cover")
        if marker is not None:
            strength, *each = marker.args
            values = {name: id(value) for name, value in item.callspec.params.items()}
            apart = [values.pop(name) for name in (*each, *(d for d in DEVICES if d in values))]
            groups[(item.parent, item.originalname, strength, *apart)].append((item, tuple(values.items())))
    for (_, _, strength, *_), group in groups.items():
        kept = covering([case for _, case in group], strength)
        for place, (item, _) in enumerate(group):
            if place not in kept:
                item.add_marker(pytest.mark.slow)


def covering(cases: Sequence[Case], strength: int) -> set[int]:
    """The indices of few cases that together have every combination of up to `strength` values."""
    has = [{part for n in range(1, strength + 1) for part in combinations(case, n)} for case in cases]
    missing: set[tuple[tuple[str, int], ...]] = set().union(*has)
    used: Counter[tuple[str, int]] = Counter()
    kept: set[int] = set()
    while missing:
        # Among the cases that add most, take the one whose values were used least, so that values are mixed.
        best = max(range(len(cases)), key=lambda i: (len(has[i] & missing), -sum(used[value] for value in cases[i])))
        kept.add(best)
        used.update(cases[best])
        missing -= has[best]
    return kept
