"""The statistics of two classifiers on the same images, against what was computed by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from seattn.core.recipe import OurKeys, Recipe
from seattn.evaluation.statistics import (
    Pair,
    changed_pairs,
    confused_pairs,
    hardest_class,
    mcnemar,
    newcombe_interval,
    paired_difference,
)
from seattn.reports.runs import differences, group_runs, read_run
from tests.helpers.report_runs import ARCH, fake_run

MATRIX = np.array([[5.0, 3, 2], [1, 9, 0], [4, 0, 6]])


def answers(gained, lost, both=10, neither=5):
    """before, after (1, N) with that many images of each kind."""
    before = [False] * gained + [True] * lost + [True] * both + [False] * neither
    after = [True] * gained + [False] * lost + [True] * both + [False] * neither
    return np.array([before]), np.array([after])


@pytest.mark.parametrize(("gained", "lost", "p"), [(1, 8, 20 / 512), (0, 0, 1.0), (3, 3, 1.0), (0, 6, 2 / 64)])
def test_mcnemars_p_is_exact(gained, lost, p):
    assert math.isclose(mcnemar(gained, lost), p)
    assert math.isclose(mcnemar(lost, gained), p)


@pytest.mark.parametrize(
    ("counts", "low", "high"),  # gained, lost, both, n; Newcombe 1998, table II, method 10
    [
        ((12, 2, 36, 50), 0.0569, 0.3404),
        ((14, 0, 36, 50), 0.1528, 0.4167),
        ((0, 0, 54, 54), -0.0664, 0.0664),
        ((1, 0, 53, 54), -0.0496, 0.0977),
    ],
)
def test_the_interval_is_newcombes(counts, low, high):
    gained, lost, both, n = counts
    assert newcombe_interval(*counts) == pytest.approx((low, high), abs=5e-5)
    assert newcombe_interval(lost, gained, both, n) == pytest.approx((-high, -low), abs=5e-5)
    result = paired_difference(*answers(gained, lost, both=both, neither=n - both - gained - lost))
    assert (result.n, result.gained, result.lost) == (n, gained, lost)
    assert (result.low, result.high) == newcombe_interval(*counts)
    assert math.isclose(result.change, (gained - lost) / n, abs_tol=1e-12)


# Shares of images that gain, lose, are right in both and wrong in both.
@pytest.mark.parametrize("shares", [(0.05, 0.1, 0.8, 0.05), (0.0, 0.42, 0.5, 0.08), (0.02, 0.43, 0.5, 0.05)])
@pytest.mark.parametrize("n", [50, 500, 10_000])
def test_the_interval_covers_the_true_difference_in_95_of_100_samples(n, shares):
    draws = np.random.default_rng(n).multinomial(n, shares, size=500)
    intervals = [newcombe_interval(gained, lost, both, n) for gained, lost, both, _ in draws.tolist()]
    covered = np.mean([low <= shares[0] - shares[1] <= high for low, high in intervals])
    assert 0.92 <= covered <= 0.985


def test_several_runs_have_a_bootstrap_over_images_and_no_p():
    rng = np.random.default_rng(1)
    before, after = rng.random((3, 400)) < 0.6, rng.random((2, 400)) < 0.7
    found = paired_difference(before, after)
    steps = after.mean(0) - before.mean(0)
    spread = 1.96 * steps.std() / math.sqrt(400)
    assert (found.p, found.gained, found.lost) == (None, None, None)
    assert math.isclose(found.change, steps.mean(), abs_tol=1e-12)
    assert math.isclose(found.high - found.low, 2 * spread, rel_tol=0.05)
    assert paired_difference(before, before).low == paired_difference(before, before).high == 0
    assert found == paired_difference(before, after)


def test_answers_on_other_images_are_refused():
    with pytest.raises(ValueError, match="same images"):
        paired_difference(np.ones((1, 3), bool), np.ones((1, 4), bool))
    with pytest.raises(ValueError, match="at least one"):
        paired_difference(np.ones((1, 0), bool), np.ones((1, 0), bool))


def test_pairs_count_both_directions():
    assert confused_pairs(MATRIX) == [Pair(0, 2, 2, 4), Pair(0, 1, 3, 1)]
    assert confused_pairs(np.diag([3.0, 2.0])) == []
    after = MATRIX.copy()
    after[0, 1], after[2, 0], after[1, 2] = 0, 3, 1
    changes = [(old.first, old.second, new.total - old.total) for old, new in changed_pairs(MATRIX, after)]
    assert changes == [(0, 1, -3), (0, 2, -1), (1, 2, 1)]


def test_the_hardest_class_has_images():
    assert hardest_class(MATRIX) == 0
    assert hardest_class(np.array([[0.0, 0], [1, 5]])) == 1


BASE = Recipe(model=ARCH, lr=0.1, epochs=2, warmup_epochs=0)


def test_groups_are_of_one_recipe_and_different_seeds(tmp_path):
    focal = replace(BASE, seattn=OurKeys(loss="focal"))
    made = [("a-s0", BASE, 0), ("b-s1", focal, 1), ("a-s1", BASE, 1), ("again", BASE, 1), ("b-s0", focal, 0)]
    runs = [
        read_run(fake_run(tmp_path / name, ("x", "y"), seed=seed, epochs=2, recipe=recipe, finished=False))
        for name, recipe, seed in made
    ]
    groups = group_runs(runs, None)
    assert [[run.name for run in group.runs] for group in groups] == [["a-s0", "a-s1"], ["b-s1", "b-s0"], ["again"]]
    assert [group.label for group in groups] == ["a", "loss=focal", "again"]
    assert [group.label for group in group_runs(runs, ["1", "2", "3"])] == ["1", "2", "3"]


def test_groups_with_a_model_each_are_called_by_it(tmp_path):
    runs = [
        read_run(fake_run(tmp_path / name, ("x", "y"), epochs=2, recipe=replace(BASE, model=name), finished=False))
        for name in ("resnet20_cifar.cifar10", "eca_resnet20_cifar.cifar10")
    ]
    assert [group.label for group in group_runs(runs, None)] == ["resnet20_cifar.cifar10", "eca_resnet20_cifar.cifar10"]


def test_what_differs_in_recipes_is_told_key_by_key():
    other = replace(BASE, seed=5, smoothing=0.0, seattn=OurKeys(cutout=8), model_kwargs={"rd_ratio": 0.25})
    assert differences([BASE, other]) == {
        "smoothing": [0.1, 0.0],
        "seattn.cutout": [0, 8],
        "model_kwargs.rd_ratio": [None, 0.25],
    }
