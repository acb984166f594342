"""What a study's variants do to the hardest class: how it is looked at, kept and rendered."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.evidence.studies import ROWS, committed, render_page
from benchmarks.evidence.study_classes import StudyClasses, look_at_classes, read_study_classes, render_hardest
from seattn.core.errors import UserError
from seattn.evaluation.scoring import evaluate
from seattn.experiments.study.results import StudyResult, StudyRow, VariantResult
from seattn.models.load import load_model
from tests.helpers.report_runs import fake_run, write_images
from tests.helpers.studies import ROW

NAMES = ("cat", "dog", "owl")


@pytest.fixture
def looked_at(tmp_path):
    """A run in `tmp_path`/runs, its images and its row."""
    data = write_images(tmp_path / "data", {"train": 2, "validation": 6}, NAMES)
    run = fake_run(tmp_path / "runs" / "net-s0", NAMES, result=False)
    scores = evaluate(load_model(str(run)), data / "validation", workers=0)
    row = StudyRow("x", "a", "net-s0", replace(ROW, top1=scores.top1, n=scores.n))
    return row, tmp_path / "runs", data, scores


def test_the_counts_of_a_run_are_those_of_evaluate_and_others_join_them(looked_at, tmp_path):
    row, runs, data, scores = looked_at
    path = look_at_classes([row], runs, data, tmp_path)
    kept = read_study_classes("x", tmp_path)
    assert kept == StudyClasses(NAMES, {"net-s0": scores.confusion})
    fake_run(runs / "other-s0", NAMES, result=False)  # the same weights
    look_at_classes([replace(row, run="other-s0")], runs, data, tmp_path)
    assert set(read_study_classes("x", tmp_path).runs) == {"net-s0", "other-s0"}
    assert path == tmp_path / "x.classes.json"
    assert read_study_classes("y", tmp_path) is None


def test_other_images_than_the_rows_are_refused_and_nothing_is_written(looked_at, tmp_path):
    row, runs, data, scores = looked_at
    for other in ({"top1": scores.top1 + 0.2}, {"n": 17}):
        wrong = replace(row, result=replace(row.result, **other))
        with pytest.raises(UserError, match="these are not the images of the run"):
            look_at_classes([wrong], runs, data, tmp_path)
    with pytest.raises(UserError, match="nowhere"):
        look_at_classes([replace(row, run="nowhere")], runs, data, tmp_path)
    assert read_study_classes("x", tmp_path) is None


def study(counts):
    """A result and classes out of {variant: {seed: (K, K) counts}}."""
    rows = [
        StudyRow("x", variant, f"{variant}-s{seed}", replace(ROW, seed=seed))
        for variant, by_seed in counts.items()
        for seed in by_seed
    ]
    variants = tuple(VariantResult(name, {}, None, None, None, None, None) for name in counts)
    runs = {f"{v}-s{s}": tuple(map(tuple, m)) for v, by_seed in counts.items() for s, m in by_seed.items()}
    return StudyResult("x", variants, (), tuple(rows), ()), StudyClasses(NAMES, runs)


def test_the_hardest_class_is_the_references_and_differences_are_paired_by_seed():
    before = {
        0: [[60, 30, 10], [10, 80, 10], [0, 0, 100]],  # recalls 60, 80, 100
        1: [[62, 30, 8], [10, 84, 6], [0, 0, 100]],
    }
    after = {1: [[72, 20, 8], [20, 74, 6], [0, 0, 100]], 0: [[80, 10, 10], [30, 60, 10], [0, 0, 100]]}
    text = render_hardest(*study({"before": before, "after": after, "none yet": {}}))
    assert text.startswith(
        "`before` has its lowest recall for cat, which it most often takes for dog: 30.0 of 100 images a run."
    )
    assert "| variant | n | recall of cat % | precision of cat % | recall of dog % | precision of dog % |" in text
    assert "| before | 2 | 61.00 ± 1.41 | " in text
    # +20 and +10: 15 ± 7.07, and 12.71 of its standard errors, which are 5
    assert "| after | 2 | 76.00 ± 5.66 (+15.00, −48.53 to +78.53) | " in text
    precision = np.mean([80 / 110, 72 / 92]) * 100
    assert f" | {precision:.2f} ± " in text
    assert " | 67.00 ± 9.90 (−15.00, " in text
    precision = np.mean([60 / 70, 74 / 94]) * 100
    assert f" | {precision:.2f} ± " in text
    assert "| none yet | 0 | - | - | - | - |" in text


def test_a_reference_that_nobody_looked_at_gives_no_table():
    result, classes = study({"before": {}, "after": {0: np.eye(3, dtype=int).tolist()}})
    assert render_hardest(result, classes) == ""


def test_what_is_committed_agrees_with_the_rows():
    results = committed()
    for path in ROWS.glob("*.classes.json"):
        result = results[path.name.removesuffix(".classes.json")]
        classes = read_study_classes(result.name, ROWS)
        assert set(classes.runs) == {row.run for row in result.rows}
        for row in result.rows:
            counts = classes.counts(row.run)
            assert counts.sum() == row.result.n
            assert counts.trace() / counts.sum() == pytest.approx(row.result.top1, abs=1.5 / row.result.n)
        assert render_hardest(result, classes) in render_page(results)
