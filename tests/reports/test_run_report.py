"""`seattn report` as its user meets it: one run or several, with images or without, and all that can be wrong."""

import re
from base64 import b64encode
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch

from seattn.__main__ import main
from seattn.core.errors import UserError
from seattn.core.recipe import OurKeys, Recipe
from seattn.data import images
from seattn.data.open import open_data
from seattn.evaluation.prediction import predict
from seattn.evaluation.scoring import evaluate
from seattn.evaluation.style import Plot
from seattn.models.load import load_model
from seattn.reports.calibration import calibrate_folder
from seattn.reports.page import Bold, Headline, Table
from seattn.reports.page import Page as ReportPage
from seattn.reports.run_report import report_runs
from seattn.reports.runs import group_runs, open_split, read_run, score_run
from tests.helpers.page import Page
from tests.helpers.report_runs import ARCH, fake_run, write_images

NAMES = ("cat", "dog", "<b>emu</b>".replace("/", "|"))
FIGURE = "data:image/svg+xml;base64," + b64encode(b"<style>@media (prefers-color-scheme: dark)</style>").decode()
BASE = Recipe(model=ARCH, lr=0.1, epochs=3, warmup_epochs=0)
FOCAL = replace(BASE, seattn=OurKeys(loss="focal", class_weights="balanced"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Images with a validation folder, and no test folder."""
    return write_images(tmp_path_factory.mktemp("data"), {"train": 4, "validation": 12}, NAMES)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return {
        "before": fake_run(root / "before", NAMES, weights=0, recipe=BASE, result={"held_out_images": 36}),
        "after": fake_run(root / "after", NAMES, weights=1, recipe=FOCAL, result=False),
        "before-s1": fake_run(root / "before-s1", NAMES, weights=2, seed=1, recipe=BASE, result=False),
        "going": fake_run(root / "going", NAMES, epochs=2, recipe=replace(BASE, epochs=9), finished=False),
    }


@pytest.fixture
def quick(monkeypatch):
    """Figures that are not drawn, where they are not what is tested: they take most of a report's time."""
    monkeypatch.setattr(Plot, "uri", lambda self: FIGURE)
    monkeypatch.setattr(Plot, "titled", lambda self, kind: b"")


def report(out, *args):
    assert main(["report", *map(str, args), "--out", str(out)]) == 0
    return Page((out / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def single(runs, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("one")
    return out, report(out, runs["before"], "--data-dir", data)


@pytest.fixture(scope="module")
def comparison(runs, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("two")
    return out, report(out, runs["before"], runs["after"], "--data-dir", data)


def test_the_page_of_one_run_stands_alone_beside_its_figures(single):
    out, page = single
    assert page.stands_alone()
    assert "<b>emu" not in page.html
    figures = {path.name for path in out.iterdir()} - {"report.html"}
    assert figures == {
        f"{name}.png"
        for name in ("curves", "classes", "hardest-class", "confusion", "reliability", "hardest-pairs", "worst-images")
    }
    assert len(page.figures()) == 5


def test_its_numbers_are_those_of_evaluate(single, runs, data):
    scores = evaluate(load_model(str(runs["before"])), data / "validation", workers=0)
    text = single[1].text
    assert 0 < scores.top1 < 1
    assert f"{scores.top1:.1%}top-1 accuracy on 36 images, 95% interval {scores.top1_low:.1%}" in text
    for score in scores.per_class:
        assert f"{score.recall:.1%}" in text
        assert f"{score.precision:.1%}" in text
    hardest = min(scores.per_class, key=lambda score: (score.recall, score.precision))
    assert f"The hardest class: {hardest.name}" in text
    wrong = round(36 * (1 - scores.top1))
    assert f"of {wrong:,} mistakes" in text
    assert "the validation split" in text


def test_the_same_report_is_the_same_files(single, runs, data, tmp_path):
    report(tmp_path, runs["before"], "--data-dir", data)
    for path in single[0].iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_before_and_after_count_the_images_that_changed(comparison, runs, data):
    page = comparison[1]
    assert page.stands_alone()
    files = sorted((data / "validation").rglob("*.png"))
    said = {
        key: np.array(
            [
                p.labels[0] == f.parent.name
                for p, f in zip(predict(load_model(str(runs[key])), files), files, strict=True)
            ]
        )
        for key in ("before", "after")
    }
    gained, lost = (int((said[a] & ~said[b]).sum()) for a, b in (("after", "before"), ("before", "after")))
    assert gained
    assert lost
    assert f"Wrong before, right now: {gained}" in page.text
    assert f"Right before, wrong now: {lost}" in page.text
    change = 100 * (said["after"].mean() - said["before"].mean())
    assert f"{change:+.1f}points of top-1 accuracy: loss=focal, class_weights=balanced against before" in page.text
    assert "seattn.losscross_entropyfocal" in page.text.replace("\n", "")
    assert {"gained.png", "lost.png", "class-changes.png"} <= {path.name for path in comparison[0].iterdir()}


def test_weights_of_single_classes_are_one_change_with_names(tmp_path):
    cats = replace(BASE, seattn=OurKeys(class_weights={"cat": 2.0, "dog": 0.5}))
    recipes = {"before": BASE, "cats": cats}
    runs = [
        read_run(fake_run(tmp_path / name, NAMES, recipe=recipe, finished=False)) for name, recipe in recipes.items()
    ]
    assert [group.label for group in group_runs(runs, None)] == ["before", "class_weights=cat 2, dog 0.5"]


def test_runs_of_one_recipe_are_one_group_with_mean_and_deviation(runs, data, tmp_path, quick):
    page = report(tmp_path, runs["before"], runs["before-s1"], runs["after"], "--data-dir", data, "--labels", "a,b")
    assert page.stands_alone()
    tops = [
        evaluate(load_model(str(runs[key])), data / "validation", workers=0).top1 for key in ("before", "before-s1")
    ]
    assert f"{np.mean(tops):.2%} ± {np.std(tops, ddof=1):.2%} (n = 2)" in page.text
    assert "b against a" in page.text
    assert "McNemar" not in page.text  # of single runs only
    alone = report(tmp_path / "alone", runs["before"], runs["before-s1"], "--data-dir", data)
    assert "mean of 2 seeds" in alone.text
    assert "All sections below are about seed 0" in alone.text


def test_without_images_there_are_curves_and_what_more_there_could_be(runs, tmp_path, quick):
    page = report(tmp_path, runs["before"])
    assert page.stands_alone()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["curves.png", "report.html"]
    assert "With --data-dir" in page.text
    assert "32.0%top-1 accuracy after the last epoch" in page.text
    assert "3 of 3 epochs, weights of epoch 3, 3 min" in page.text


def test_a_run_that_goes_on_has_its_curves_only(runs, data, tmp_path, quick):
    page = report(tmp_path / "a", runs["going"], "--data-dir", data)
    assert "going has no weights (2 of 9 epochs)" in page.text
    assert "With --data-dir" not in page.text
    both = report(tmp_path / "b", runs["going"], runs["before"], "--data-dir", data)
    assert both.stands_alone()
    assert "2 of 9, no weights" in both.text
    assert "Confusions and calibration" in both.text


def test_the_test_split_is_read_only_when_asked_for(runs, tmp_path, fails, quick):
    root = write_images(tmp_path / "data", {"train": 4, "validation": 4, "test": 5}, NAMES)
    (root / "test" / "cat" / "0.png").write_bytes(b"no image")
    run = fake_run(tmp_path / "run", NAMES, result={"held_out_images": 12})
    page = report(tmp_path / "held", run, "--data-dir", root)
    assert "test split" not in page.text.lower()
    assert "cannot read image" in fails("report", run, "--data-dir", root, "--split", "test", "--out", tmp_path / "t")
    (root / "test" / "cat" / "0.png").unlink()
    page = report(tmp_path / "test", run, "--data-dir", root, "--split", "test")
    assert "The test split was read for this page" in page.text
    assert "on 14 images" in page.text


@pytest.mark.parametrize("damaged", [0, 1])
def test_what_is_held_out_of_train_is_what_the_run_held_out(tmp_path, damaged):
    """Also if the run left damaged images out, which changes what is drawn."""
    root = write_images(tmp_path / "data", {"train": 20}, NAMES)
    if damaged:
        next(root.glob("train/*/3.png")).write_bytes(b"no image")
    recipe = replace(BASE, seattn=OurKeys(holdout=0.25, holdout_seed=3), workers=0)
    counts = {"held_out_images": 15, "train_images": 20 * len(NAMES) - damaged - 15}
    run = read_run(fake_run(tmp_path / "run", NAMES, recipe=recipe, result=counts))
    model = load_model(str(run.path))
    trained = open_data(recipe, root, model.pretrained_cfg, torch.device("cpu"), skip_bad=bool(damaged)).held_out
    assert len(trained) == 15
    split = open_split([run], root, "held-out")
    assert split.images.labels.tolist() == trained.labels.tolist()
    logits = torch.cat([model(x) for x in trained.in_order()]).detach()
    ours = score_run(run, split, "cpu").probabilities
    np.testing.assert_allclose(ours, logits.double().softmax(1).numpy(), atol=1e-5)


def test_images_are_read_as_in_the_training_of_the_run(data, tmp_path, monkeypatch):
    """A report and a calibration follow the recipe's choice about EXIF orientation."""
    run = read_run(fake_run(tmp_path / "run", NAMES, recipe=replace(BASE, seattn=OurKeys(exif=False)), result=False))
    seen, read = set(), images.read_image
    monkeypatch.setattr(images, "read_image", lambda path, mode, exif: seen.add(exif) or read(path, mode, exif=exif))
    score_run(run, open_split([run], data, "held-out"), "cpu")
    assert seen == {False}
    seen.clear()
    with suppress(UserError):  # weights that were not trained need not have a temperature
        calibrate_folder(run.path, data, workers=0)
    assert seen == {False}


def test_a_log_that_says_something_else_is_told(single, runs, data):
    scored = evaluate(load_model(str(runs["before"])), data / "validation", workers=0)
    assert abs(scored.top1 - 0.32) > 0.04
    assert (
        f"The run's own log says 32.00 % on the images that it held out, here the accuracy is {scored.top1:.2%}"
        in single[1].text
    )


def test_75_classes_stay_readable(tmp_path):
    names = [f"species {i:02d} of a long name" for i in range(75)]
    root = write_images(tmp_path / "data", {"train": 1, "validation": 2}, names)
    run = fake_run(tmp_path / "run", names, result=False)
    page = report(tmp_path / "one", run, "--data-dir", root)
    assert page.stands_alone()
    assert "the other 60 classes" in page.text
    assert "Confusion matrix of 75 classes" in page.html
    assert all(page.text.count(name) for name in names)


@pytest.mark.slow
def test_75_classes_before_and_after(tmp_path):
    names = [f"species {i:02d} of a long name" for i in range(75)]
    root = write_images(tmp_path / "data", {"train": 1, "validation": 2}, names)
    runs = [fake_run(tmp_path / str(i), names, weights=i, result=False, recipe=r) for i, r in enumerate((BASE, FOCAL))]
    assert report(tmp_path / "two", *runs, "--data-dir", root).stands_alone()


TESTED = {"split": "test", "n": 1000, "top1": 0.8, "top1_low": 0.77, "top1_high": 0.83, "held_out_images": 36}


def test_the_score_on_the_test_split_comes_first(data, tmp_path, quick):
    run = fake_run(tmp_path / "run", NAMES, recipe=BASE, result=TESTED)
    scores = evaluate(load_model(str(run)), data / "validation", workers=0)
    headline = "80.0%top-1 accuracy on 1,000 test images, as the run recorded it; 95% interval 77.0% to 83.0%"
    page = report(tmp_path / "one", run, "--data-dir", data)
    assert page.text.index(headline) < page.text.index(f"{scores.top1:.2%}")
    assert "top-1, 36 images below" in page.text
    assert headline in report(tmp_path / "curves", run).text
    again = fake_run(tmp_path / "run-s1", NAMES, seed=1, recipe=BASE, result={**TESTED, "top1": 0.9})
    page = report(tmp_path / "seeds", run, again)
    assert "85.0%top-1 accuracy on 1,000 test images, as the run recorded it; mean of 2 seeds ± 7.1%" in page.text
    focal = fake_run(tmp_path / "focal", NAMES, recipe=FOCAL, weights=1, result=False)
    page = report(tmp_path / "two", run, focal, "--data-dir", data)
    assert "run, test80.00%" in page.text
    assert "test top-1, as recorded" in page.text
    assert "not tested" in page.text


@pytest.mark.parametrize("tested", [True, False])
def test_a_run_that_held_out_no_images_says_so(tmp_path, fails, tested, quick):
    root = write_images(tmp_path / "data", {"train": 4, "test": 5}, NAMES)
    everything = replace(BASE, seattn=OurKeys(holdout=0.0))
    values = {**TESTED, "held_out_images": 0, "held_out_top1": None}
    run = fake_run(tmp_path / "run", NAMES, recipe=everything, result=values if tested else False)
    assert "no images were held out; give --split test" in fails("report", run, "--data-dir", root, "--out", tmp_path)
    other = fake_run(tmp_path / "other", NAMES, recipe=replace(everything, smoothing=0.0), result=False, weights=1)
    images = ("--data-dir", root, "--split", "test")
    for name, args in {
        "one": (run, *images),
        "curves": (run,),
        "two": (run, other, *images),
        "both": (run, other),
    }.items():
        page = report(tmp_path / name, *args)
        assert page.stands_alone()
        assert "no images held out" in page.html
        assert "No images were held out" in page.text
        assert "nan" not in re.sub('data:[^"]*', "", page.html).replace("finance", "").lower()
    assert ("80.0%" in report(tmp_path / "again", run).text) == tested


def test_only_sure_changes_are_bold_and_keys_are_not_broken(comparison):
    page = comparison[1]
    assert page.having("table", **{"class": "keys"})
    assert ".keys tbody th { max-width: none; white-space: nowrap; }" in page.html
    assert "tbody th { font-weight: 400;" in page.html
    made = ReportPage()
    made.add("Classes", Table(("class", "change"), [["cat", Bold("+9.0")], ["dog", "+0.1"]]))
    html = made.html("Classes", Headline())
    assert "<td><strong>+9.0</strong></td>" in html
    assert "<td>+0.1</td>" in html


def test_progressive_resizing_and_early_stopping_are_marked(tmp_path, quick):
    recipe = replace(BASE, epochs=5, seattn=OurKeys(resize=((16, 2),), early_stop=2))
    path = fake_run(tmp_path / "run", NAMES, epochs=4, recipe=recipe)
    lines = (path / "summary.csv").read_text().splitlines()
    lines[2] = lines[2].replace("31.0", "77.0")  # the second epoch is the best
    (path / "summary.csv").write_text("\n".join(lines) + "\n")
    run = read_run(path)
    assert run.exported["eval_top1"] == 77
    assert run.planned == 5
    page = report(tmp_path / "out", path)
    assert "4 of 5 epochs, weights of epoch 2" in page.text


def test_a_finetune_folder_of_one_class_right_has_a_report(tmp_path, quick):
    root = write_images(tmp_path / "data", {"train": 2, "validation": 3}, NAMES)
    run = fake_run(tmp_path / "run", NAMES, result=False)
    for name in NAMES[1:]:  # a class folder may be empty
        for path in (root / "validation" / name).iterdir():
            path.unlink()
    assert report(tmp_path / "out", run, "--data-dir", root).stands_alone()


DAMAGE = {  # the file, its content (None: it is not there; a number: its first bytes), and the error
    "no recipe": ("recipe.yaml", None, "has no recipe.yaml"),
    "broken recipe": ("recipe.yaml", b"lr: [1", "is not valid YAML"),
    "no log": ("summary.csv", None, "has not finished its first epoch"),
    "empty log": ("summary.csv", b"", "has no epoch"),
    "log without rows": ("summary.csv", b"epoch,train_loss,eval_loss,eval_top1,lr\n", "has no epoch"),
    "cut log": ("summary.csv", -20, "line 4 is damaged"),
    "binary log": ("summary.csv", b"\xff\xfe\x00", "is not text in UTF-8"),
    "broken result": ("result.json", b'{"top1": ', "result.json is not valid JSON"),
    "other result": ("result.json", b"[]", "result.json must hold a JSON object"),
    "broken config": ("config.json", b"{", "config.json is not valid JSON"),
    "cut weights": ("model.safetensors", 500, "model.safetensors"),
}


@pytest.mark.parametrize(("name", "content", "message"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_run_is_one_line_and_leaves_nothing(name, content, message, data, tmp_path, fails):
    run = fake_run(tmp_path / "run", NAMES, result={"held_out_images": 36})
    if isinstance(content, int):
        content = (run / name).read_bytes()[:content]
    (run / name).unlink()
    if content is not None:
        (run / name).write_bytes(content)
    assert message in fails("report", run, "--data-dir", data, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_compared_is_one_line(runs, data, tmp_path, fails):
    out = ("--out", tmp_path / "out")
    before, after = runs["before"], runs["after"]
    assert "no such run folder" in fails("report", tmp_path / "nowhere", *out)
    assert "is given twice" in fails("report", before, before, *out)
    assert "--labels must be 2 different names" in fails("report", before, after, "--labels", "a", *out)
    assert "--labels must be 2 different names" in fails("report", before, after, "--labels", "a,a", *out)
    assert "--split must be one of" in fails("report", before, "--data-dir", data, "--split", "train", *out)
    assert "no test split" in fails("report", before, "--data-dir", data, "--split", "test", *out)
    assert "no data folder" in fails("report", before, "--data-dir", tmp_path / "none", *out)
    assert "device" in fails("report", before, "--device", "quantum", *out)
    named = fake_run(tmp_path / "n", NAMES, recipe=replace(BASE, seattn=OurKeys(dataset="CIFAR-10")))
    assert "give runs on the same data" in fails("report", before, named, *out)
    other = fake_run(tmp_path / "o", NAMES, recipe=replace(BASE, seattn=OurKeys(holdout_seed=1)))
    train_only = write_images(tmp_path / "train_only", {"train": 20}, NAMES)
    assert "held out other images" in fails("report", after, other, "--data-dir", train_only, *out)
    counted = fake_run(tmp_path / "c", NAMES, result={"held_out_images": 7})
    assert "held out 7 images, the data folder gives 36" in fails("report", counted, "--data-dir", data, *out)
    strange = write_images(tmp_path / "strange", {"train": 1, "validation": 2}, ("a", "b"))
    assert "not one of the model's 3 classes" in fails("report", after, "--data-dir", strange, *out)
    (tmp_path / "file").write_text("in the way")
    assert "cannot write" in fails("report", before, "--out", tmp_path / "file" / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_the_earlier_report_or_nothing(runs, tmp_path, fails, monkeypatch, quick):
    report(tmp_path / "earlier", runs["before"])
    before = (tmp_path / "earlier" / "report.html").read_text()

    def full(self, title, headline):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ReportPage, "html", full)
    for name in ("earlier", "new"):
        assert "No space left on device" in fails("report", runs["after"], "--out", tmp_path / name)
    assert (tmp_path / "earlier" / "report.html").read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["earlier"]
    assert sorted(path.name for path in (tmp_path / "earlier").iterdir()) == ["curves.png", "report.html"]


def test_a_class_can_be_looked_at_that_is_not_the_hardest(runs, data, tmp_path, fails, quick):
    page = report(tmp_path, runs["before"], runs["after"], "--data-dir", data, "--class", "dog")
    net = load_model(str(runs["before"]))
    scores = evaluate(net, data / "validation", workers=0)
    recall = next(score.recall for score in scores.per_class if score.name == "dog")
    assert f"The recall of dog is {recall:.1%} in before" in page.text
    wrong = ("report", runs["before"], "--data-dir", data, "--class", "dig", "--out", tmp_path / "wrong")
    assert "no class 'dig'; did you mean 'dog'?" in fails(*wrong)
    assert not (tmp_path / "wrong").exists()


def test_by_default_the_page_stands_in_the_runs_folder(tmp_path, quick):
    done = report_runs([fake_run(tmp_path / "run", NAMES)])
    assert done.page == tmp_path / "run" / "report" / "report.html"
    assert [path.name for path in done.figures] == ["curves.png"]
