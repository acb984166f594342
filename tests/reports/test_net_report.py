"""The page stands alone, says the numbers it was given, and shows right and wrong."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from torch import nn

import seattn  # noqa: F401  # registers the models
from seattn.core.errors import UserError
from seattn.evaluation.scoring import Scores, summarize
from seattn.reports.images import choose_images
from seattn.reports.net_report import write_report
from tests.helpers.page import Page

NAMES = ("cat", "dog", "<script>alert(1)</script>")
N = 30


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(N) % 3
    logits = 2 * nn.functional.one_hot(labels, 3) + torch.randn(N, 3, generator=generator)
    return {
        "title": "a & b",
        "model": timm.create_model("se_resnet20_cifar", num_classes=3),
        "scores": scores_of(logits, labels),
        "facts": {"weights": "<none>"},
    }


def scores_of(logits, labels, names=NAMES):
    pictures = np.random.default_rng(0).integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8)
    evaluation = summarize(logits, labels, names)
    return Scores(evaluation, labels.numpy(), pictures, logits.double().softmax(1).numpy(), params=1)


@pytest.fixture(scope="module")
def html(inputs, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "new" / "report.html"
    write_report(path, **inputs)
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


def test_the_page_stands_alone_for_light_and_dark(html):
    page = Page(html)
    assert page.stands_alone()
    assert len(page.having("img")) > N
    assert len(page.figures()) == 3
    assert "@media (prefers-color-scheme: dark)" in html


def test_the_headline_is_the_evaluation(html, inputs):
    evaluation, text = inputs["scores"].evaluation, Page(html).text
    assert 0 < evaluation.top1 < 1
    assert f"{evaluation.top1:.1%}" in text
    assert f"on {N} images, 95% interval {evaluation.top1_low:.1%} to {evaluation.top1_high:.1%}" in text
    assert f"{evaluation.ece:.3f}" in text
    for score in evaluation.per_class:
        assert f"{score.precision:.1%}{score.f1:.1%}{score.support}" in text
        assert f"{score.name}{score.recall:.1%}" in text


def test_wrong_images_are_marked_by_sign_and_frame_with_both_labels(html, inputs):
    page, evaluation = Page(html), inputs["scores"].evaluation
    wrong = round(N * (1 - evaluation.top1))
    assert wrong > 0
    assert len(page.having("figure", **{"class": "wrong"})) == wrong
    assert page.text.count("✓ ") == N - wrong
    assert page.text.count("✗ ") == wrong
    alts = Counter(a["alt"] for a in page.having("img") if a["alt"].endswith("(wrong)"))
    assert alts == {f"{t}, predicted {p} (wrong)": n for t, p, n in evaluation.worst_pairs(99)}


def test_strings_of_the_user_are_escaped(html):
    assert "<script>" not in html
    assert "<title>a &amp; b</title>" in html
    assert "&lt;none&gt;" in html


def test_the_same_report_is_the_same_file(html, inputs, tmp_path):
    write_report(tmp_path / "again.html", **inputs)
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == html


def test_a_model_without_attention_says_so(inputs, tmp_path):
    write_report(tmp_path / "r.html", **{**inputs, "model": timm.create_model("resnet20_cifar", num_classes=3)})
    assert "no attention layer with channel gates" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_all_right_and_all_wrong_have_a_report_too(inputs, tmp_path):
    for shift in (0, 1):
        labels = torch.arange(N) % 3
        logits = 9.0 * nn.functional.one_hot((labels + shift) % 3, 3)
        write_report(tmp_path / f"{shift}.html", **{**inputs, "scores": scores_of(logits, labels)})
        found = Page((tmp_path / f"{shift}.html").read_text(encoding="utf-8"))
        assert len(found.having("figure", **{"class": "wrong"})) == (N if shift else 0)


def test_a_folder_that_cannot_be_written_to_leaves_nothing(inputs, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write"):
        write_report(tmp_path / "file" / "report.html", **inputs)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_many_classes_are_drawn_without_labels_in_cells(inputs, tmp_path):
    logits = torch.randn(N, 40, generator=torch.Generator().manual_seed(0))
    scores = scores_of(logits, torch.arange(N), [f"class {i}" for i in range(40)])
    write_report(tmp_path / "r.html", **{**inputs, "scores": scores})
    assert "Confusion matrix of 40 classes" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_chosen_images_are_half_wrong_and_show_each_kind_of_mistake_first():
    labels = np.array([0] * 200 + [1] * 200)
    predicted = labels.copy()
    predicted[:50] = 1  # 0 as 1, fifty times
    predicted[200:220] = 2  # 1 as 2, twenty times, and more confident
    confidence = np.linspace(0.5, 1, 400)
    answers = SimpleNamespace(labels=labels, predicted=predicted, confidence=confidence, correct=labels == predicted)
    chosen = choose_images(answers, count=20)
    pairs = [(int(labels[i]), int(predicted[i])) for i in chosen]
    assert len(set(chosen)) == 20
    assert [true != said for true, said in pairs] == [True] * 10 + [False] * 10
    assert Counter(pairs[:6]) == {(0, 1): 3, (1, 2): 3}
    assert Counter(pairs[10:]) == {(0, 0): 5, (1, 1): 5}
    assert chosen[0] == 219  # the most confident mistake of all


@pytest.mark.parametrize("wrong", [0, 3, 55, 100])
def test_chosen_images_fill_the_grid_where_one_kind_is_short(wrong):
    labels = np.zeros(100, dtype=int)
    predicted = (np.arange(100) < wrong).astype(int)
    answers = SimpleNamespace(
        labels=labels, predicted=predicted, confidence=np.full(100, 0.9), correct=labels == predicted
    )
    chosen = choose_images(answers)
    assert len(set(chosen)) == 60
    assert sum(predicted[chosen]) == {0: 0, 3: 3, 55: 30, 100: 60}[wrong]
