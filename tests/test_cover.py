"""Which cases `make test` keeps, and that GPU tests say how many were left out."""

from itertools import combinations, product

import pytest
import torch

from tests.helpers.cover import covering

pytest_plugins = ["pytester"]

GRID = [tuple(zip("abcd", values, strict=True)) for values in product(range(5), range(4), range(2), range(3))]


@pytest.mark.parametrize(("strength", "most"), [(1, 5), (2, 22), (3, 80), (4, 120)])
def test_a_part_of_a_product_has_every_combination(strength, most):
    kept = [GRID[place] for place in covering(GRID, strength)]
    assert len(kept) <= most
    for names in combinations(range(4), strength):
        assert {tuple(case[i] for i in names) for case in kept} == {tuple(case[i] for i in names) for case in GRID}


def test_a_product_with_holes_keeps_what_is_there():
    holes = [case for case in GRID if case[0][1] + case[1][1] != 3]
    kept = [holes[place] for place in covering(holes, 2)]
    assert {case[:2] for case in kept} == {case[:2] for case in holes}


@pytest.fixture
def project(pytester, pytestconfig):
    pytester.makepyprojecttoml((pytestconfig.rootpath / "pyproject.toml").read_text(encoding="utf-8"))
    pytester.makepyfile(conftest=(pytestconfig.rootpath / "tests" / "conftest.py").read_text("utf-8"))
    pytester.makepyfile(
        test_it="""
        import pytest

        @pytest.mark.cover(2, "each")
        @pytest.mark.parametrize("a", range(3))
        @pytest.mark.parametrize("b", range(3))
        @pytest.mark.parametrize("c", range(3))
        @pytest.mark.parametrize("each", ["x", "y"])
        def test_product(a, b, c, each, device):
            pass
        """
    )
    return pytester


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_make_test_and_make_test_slow_share_the_cases_and_gpu_tests_are_one_skip(project):
    counts = []
    for marks in ("not slow", "slow"):
        result = project.inline_run("-m", marks, "-p", "no:cacheprovider")
        passed, skipped, failed = result.listoutcomes()
        counts.append(len(passed))
        assert failed == []
        (report,) = skipped
        assert report.longrepr[2] == f"Skipped: needs a CUDA device ({len(passed)} tests)"
    assert counts[0] + counts[1] == 2 * 27
    assert counts[0] in range(2 * 9, 2 * 12)
    assert len(project.inline_run("-m", "not slow", "test_it.py::test_product[cpu-y-2-2-2]").listoutcomes()[0]) == 1


def test_a_marker_that_names_no_parameter_is_an_error(project):
    project.makepyfile(
        test_it="""
        import pytest

        @pytest.mark.cover(2, "nothing")
        @pytest.mark.parametrize("a", range(3))
        def test_product(a):
            pass
        """
    )
    assert project.inline_run().ret != 0
