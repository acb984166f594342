"""The committed rows of studies, how rows are taken in, and what is rendered from them."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import render, study
from benchmarks.evidence.studies import CHANGES, ROWS, STUDIES, committed, render_gain, render_page
from seattn.core.errors import UserError
from seattn.experiments.study.ablation import ablate
from seattn.experiments.study.results import read_rows, write_rows
from tests.helpers.studies import WHERE, finish_all

NAME = CHANGES[0].study
ROOT = Path(__file__).parents[2]


@pytest.fixture
def rows(tmp_path):
    """Rows of the shipped study of SE with accuracies that the test chooses, by variant and seed; where they are."""

    def make(top1):
        path = STUDIES / f"{NAME}.yaml"
        finish_all(path, tmp_path / "out", lambda variant, seed: top1.get((variant, seed)))
        ablate(path, None, tmp_path / "out")
        return tmp_path / "out" / NAME / "rows.csv"

    return make


def both(*pairs):
    """Accuracies in percent with SE and without it, a pair a seed."""
    names = ("all", "no_se")
    return {
        (name, seed): value / 100 for seed, pair in enumerate(pairs) for name, value in zip(names, pair, strict=True)
    }


def gain(rows_csv, tmp_path):
    study.take(rows_csv, tmp_path / "taken")
    return render_gain(committed(tmp_path / "taken"))


def test_what_is_committed_is_of_shipped_studies_and_clean_commits():
    for name, result in committed().items():  # raises where a row is not a run of the study, or not of a clean commit
        assert {row.result.split for row in result.rows} == {"held-out"}
        assert [(row.study, row.run) for row in result.rows] == [
            (row.study, row.run) for row in read_rows(ROWS / f"{name}.csv")
        ]
        assert len({(row.result.n, row.result.dataset) for row in result.rows}) == 1
        if name != "imbalance":  # where one variant has a second stage
            assert len({row.result.epochs for row in result.rows}) == 1


def test_the_committed_page_is_the_rendered_one():
    assert (ROWS / "README.md").read_text(encoding="utf-8") == render_page(committed()), "make cards"
    assert {path.stem for path in ROWS.glob("*.svg")} == set(committed())


def test_the_readme_has_the_table():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert render_gain(committed()) in text
    assert render.render_readme(text) == text, "make cards"


def test_no_rows_say_so(tmp_path):
    assert render_gain(committed(tmp_path)).startswith(
        "What attention gives ResNet-20 is not measured yet; `seattn ablate"
    )
    assert "There are no rows yet." in render_page({})


@pytest.mark.parametrize(
    ("pairs", "answer", "line"),
    [
        (
            ((88.0, 87.0), (88.2, 88.3), (88.4, 88.0)),
            "No change in the table makes a difference",
            "+0.43 | −0.93 to +1.80 | 0.31 | 3 |",
        ),
        (
            ((88, 87), (88.2, 87.1), (88.4, 87.5)),
            r"chance explains: SE added.* \(\+1\.00 points\)",
            "+1.00 | +0.75",
        ),
        (
            ((87, 88), (87.1, 88.2), (87.5, 88.4)),
            r"chance explains: SE added.* \(−1\.00 points\)",
            "−1.00 | −1.25",
        ),
        (((88, 87),), "No change in the table makes a difference", "+1.00 |  | - | 1 |"),
        (((88, 87), (89, 88), (90, 89)), "No change in the table makes a difference", "+1.00 |  | - | 3 |"),
    ],
    ids=["across zero", "better", "worse", "one seed", "all alike"],
)
def test_the_answer_and_the_table_follow_the_numbers(rows, tmp_path, pairs, answer, line):
    text = gain(rows(both(*pairs)), tmp_path)
    assert re.search(answer, text), text
    assert line in text
    assert "Runs of 2 epochs, judged on 1,000 images held out of" in text


def test_the_table_has_a_line_for_each_change_that_has_rows(rows, tmp_path):
    study.take(rows(both((88, 87))), tmp_path / "taken")
    path = STUDIES / "attention.yaml"
    top1 = {("none", 0): 0.8, ("none", 1): 0.82, ("se", 0): 0.81, ("se", 1): 0.84, ("cbam", 1): 0.8, ("eca", 2): 0.8}
    finish_all(path, tmp_path / "out", lambda variant, seed: top1.get((variant, seed)))
    ablate(path, None, tmp_path / "out")
    study.take(tmp_path / "out" / "attention" / "rows.csv", tmp_path / "taken")
    lines = [line for line in render_gain(committed(tmp_path / "taken")).splitlines() if line.startswith("| ")][2:]
    assert lines == [
        "| SE added, in a recipe with dropout and cut-out | +1.00 |  | - | 1 |",
        "| SE added, without dropout | +1.50 | −4.85 to +7.85 | 0.20 | 2 |",
        "| CBAM added, without dropout | −2.00 |  | - | 1 |",
    ]


def test_a_change_without_a_seed_of_both_nets_has_no_line(rows, tmp_path):
    assert "not measured yet" in gain(rows({("all", 0): 0.8, ("no_se", 1): 0.8}), tmp_path)


def test_rows_join_those_that_stand_there(rows, tmp_path, capsys, monkeypatch):
    first = rows(both((88, 87)))
    monkeypatch.setattr(study.take, "__defaults__", (tmp_path / "taken", STUDIES))
    assert study.main([str(first)]) == 0
    assert study.main([str(rows(both((80, 79), (88, 87))))]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'taken' / NAME}.csv\n" * 2
    taken = read_rows(tmp_path / "taken" / f"{NAME}.csv")
    found = [(row.variant, row.result.seed, row.result.top1) for row in taken]
    assert found == [("all", 0, 0.8), ("all", 1, 0.88), ("no_se", 0, 0.79), ("no_se", 1, 0.87)]


def test_page_and_plots_are_written_and_the_same_again(rows, tmp_path):
    study.take(rows(both((88, 87), (88.2, 88.3))), tmp_path / "taken")
    render.write_studies(tmp_path / "taken")
    files = {path.name: path.read_bytes() for path in (tmp_path / "taken").iterdir()}
    assert sorted(files) == ["README.md", f"{NAME}.csv", f"{NAME}.svg"]
    page = files["README.md"].decode()
    assert f"## {NAME}\n\n| variant | n |" in page
    assert f"![{NAME}]({NAME}.svg)" in page
    assert "| no_dropout | 0 | - |" in page
    render.write_studies(tmp_path / "taken")
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "taken").iterdir()}


def with_conditions(**changes):
    return lambda row: replace(row, result=replace(row.result, conditions=replace(WHERE, **changes)))


WRONG = {
    "dirty": (with_conditions(commit="abc1234+"), r"was trained by code without a commit \(abc1234\+\)"),
    "installed": (with_conditions(commit=""), r"was trained by code without a commit \(none\)"),
    "test split": (lambda row: replace(row, result=replace(row.result, split="test")), "is of the test split"),
    "another run": (lambda row: replace(row, run="resnet20_cifar.cifar10-00000000-s0"), "is not a run of"),
    "another variant": (lambda row: replace(row, variant="no_se"), "'no_se' of 'se-dropout-augment', is not a run of"),
    "another seed": (lambda row: replace(row, result=replace(row.result, seed=4)), "is not a run of"),
    "another study": (lambda row: replace(row, study="mine"), "mine is not a shipped study"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_rows_that_cannot_be_taken_are_named_and_none_is(rows, tmp_path, change, message):
    path = rows(both((88, 87)))
    good, other = read_rows(path)
    write_rows(path, [change(good), other])
    with pytest.raises(UserError, match=message) as caught:
        study.take(path, tmp_path / "taken")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "taken").exists()


def test_a_run_twice_is_refused(rows, tmp_path):
    path = rows(both((88, 87)))
    one, other = read_rows(path)
    write_rows(path, [one, other, one])
    with pytest.raises(UserError, match="is twice"):
        study.take(path, tmp_path / "taken")


def test_the_command_says_what_is_wrong_in_a_line(tmp_path, command_fails):
    assert "holds no rows; seattn ablate writes them" in command_fails(study, tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    assert "has other columns than StudyRow" in command_fails(study, tmp_path / "other.csv")
    assert "unrecognized arguments: --nonsense" in command_fails(study, "a", "--nonsense")
    assert (tmp_path / "other.csv").read_text() == "a,b\n1,2\n"
