"""`seattn finetune` as its user meets it: a folder of images in, weights, a score and a report out."""

import json
import logging
import os
import re

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

import seattn.training.finetuning
from seattn.__main__ import main
from seattn.core.errors import UserError
from seattn.data.folders.linking import link_splits
from seattn.data.folders.reading import read_folder
from seattn.deploy import export_model
from seattn.evaluation.prediction import predict
from seattn.evaluation.scoring import evaluate
from seattn.models.load import load_model
from seattn.reports.net_report import write_run_report
from seattn.reports.runs import open_split, read_run
from seattn.training.finetuning import choose_recipe, finetune, images_of_nets
from seattn.training.loop import TrainingRun

ARCH = "se_resnet20_cifar"
COLOURS = {"blue": 2, "green": 1, "red": 0}
FAST = {"epochs": 2, "batch_size": 8, "workers": 0}


def paint(folder, name, count, size=(40, 36)):
    """Noise in which one colour channel is brighter."""
    rng = np.random.default_rng(len(str(folder)) + count)
    (folder / name).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        pixels = rng.integers(120, size=(size[1], size[0], 3), dtype=np.uint8)
        pixels[:, :, COLOURS[name]] += 120
        Image.fromarray(pixels).save(folder / name / f"{i}.png")


@pytest.fixture
def plain(tmp_path):
    for name in COLOURS:
        paint(tmp_path / "colours", name, 20)
    return tmp_path / "colours"


@pytest.fixture
def split(tmp_path):
    for part, count in (("train", 10), ("test", 4)):
        for name in COLOURS:
            paint(tmp_path / "split" / part, name, count, size=(32, 32))
    return tmp_path / "split"


def names(folder):
    """Every file under it, by class and name of the image it links to."""
    return {f"{path.parent.name}/{os.path.basename(os.path.realpath(path))}" for path in folder.rglob("*.png")}


def test_plain_class_folders_become_a_model_that_timm_loads_and_a_report(plain, tmp_path, capsys):
    run = tmp_path / "run"
    options = ["--epochs", "2", "--batch-size", "8", "--set", "workers=0", "--device", "cpu"]
    assert main(["finetune", ARCH, "--data-dir", str(plain), "--out", str(run), *options]) == 0
    out, err = capsys.readouterr()
    assert f"60 images in 3 classes in {plain}: blue 20, green 20, red 20" in err
    assert "starts from its trained weights, with a new classifier of 3 classes" in err
    assert "train 48, validation 6, test 6" in err
    assert out.splitlines()[0] == f"report: {run / 'report.html'}"

    parts = [names(run / "data" / part) for part in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [48, 6, 6]
    assert set.union(*parts) == names(plain)

    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    assert (recipe["model"], recipe["pretrained"], recipe["num_classes"]) == (ARCH, True, 3)
    assert (recipe["epochs"], recipe["batch_size"], recipe["layer_decay"]) == (2, 8, 0.85)

    scope = {}
    exec(out.splitlines()[1].removeprefix("in Python: "), scope)  # the line a user copies
    model = scope["model"]
    assert model.pretrained_cfg["label_names"] == ["blue", "green", "red"]
    assert len(predict(model, [plain / "red" / "0.png"])[0].labels) == 3
    row = json.loads((run / "result.json").read_text())
    assert (row["n"], row["train_images"], row["held_out_images"], row["dataset"]) == (6, 48, 6, "colours")
    assert evaluate(model, run / "data" / "test", workers=0).top1 == row["top1"]
    html = (run / "report.html").read_text()
    assert f"{row['top1']:.1%}" in html
    assert "6 held out to choose by" in html

    assert main(["finetune", ARCH, "--data-dir", str(plain), "--out", str(run)]) == 2
    assert "exists; give another --out, or --resume" in capsys.readouterr().err
    assert main(["finetune", ARCH, "--data-dir", str(plain), "--out", str(run), "--resume"]) == 2
    assert "is finished" in capsys.readouterr().err


def test_grey_16_bit_images_under_names_that_are_not_utf_8_become_a_model_and_a_report(tmp_path):
    """Every byte string is a name on Linux; nothing after the training may fail because of one."""
    data = tmp_path / os.fsdecode(b"photos \xe9")
    rng = np.random.default_rng(0)
    for part, count in (("Training", 8), ("Testing", 2)):
        for label, name in enumerate((b"caf\xe9", b"dog")):
            folder = data / part / os.fsdecode(name)
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(100, size=(32, 32), dtype=np.uint16) + 120 * label
                with (folder / f"{part}{i}.png").open("wb") as file:
                    Image.fromarray(pixels * 257).save(file, "png")
    keys = {**FAST, "epochs": 1, "batch_size": 4, "model_kwargs.in_chans": 1}
    done = finetune("resnet20_cifar", data, tmp_path / "run", device="cpu", overrides=keys)
    page = write_run_report(done.run, done.images, done.row, done.device, skip_bad=False)
    assert "caf\ufffd" in page.read_text(encoding="utf-8")
    assert json.loads((done.run / "config.json").read_text())["label_names"] == ["caf\ufffd", "dog"]
    model = load_model(f"local-dir:{done.run}")
    assert model.conv1.weight.shape[1] == 1
    score = evaluate(model, data / "Testing", workers=0)
    assert (score.n, score.top1) == (done.row.n, done.row.top1) == (4, done.row.top1)


def test_a_split_folder_is_used_as_it_is(split, tmp_path, caplog):
    caplog.set_level(logging.INFO, "seattn")
    done = finetune(ARCH, split, tmp_path / "run", device="cpu", overrides={**FAST, "epochs": 1, "seattn.holdout": 0.2})
    assert not (tmp_path / "run" / "data").exists()
    assert (done.row.train_images, done.row.held_out_images, done.row.n) == (24, 6, 12)
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["seattn"]["crop_padding"] == 4
    page = write_run_report(done.run, done.images, done.row, done.device, skip_bad=False)
    assert page == tmp_path / "run" / "report.html"
    assert "Loss, held-out accuracy and learning rate by epoch" in page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of three classes."""
    root = tmp_path_factory.mktemp("trained")
    for part, count in (("train", 10), ("test", 4)):
        for name in COLOURS:
            paint(root / "data" / part, name, count, size=(32, 32))
    keys = {**FAST, "epochs": 1, "seattn.holdout": 0.2, "model_kwargs.rd_ratio": 0.25}
    return finetune(ARCH, root / "data", root / "run", device="cpu", pretrained=False, overrides=keys).run


@pytest.mark.parametrize("form", ["{}", "local-dir:{}", "{}/last.pth.tar", "checkpoint"])
@pytest.mark.parametrize("classes", ["the same", "others"])
def test_a_run_is_the_start_of_another(split, tmp_path, monkeypatch, trained, form, classes):
    """The first forward of the new run has the old run's weights, and its classifier where the classes are the same."""
    started = []
    step = TrainingRun._train_epoch

    def spied(self, epoch):
        started.append({key: value.clone() for key, value in self.model.state_dict().items()})
        return step(self, epoch)

    monkeypatch.setattr(TrainingRun, "_train_epoch", spied)
    if classes == "others":
        for part in ("train", "test"):
            (split / part / "red").rename(split / part / "pink")
    keys = {**FAST, "epochs": 1, "seattn.holdout": 0.2}
    model, checkpoint = form.format(trained), None
    if form == "checkpoint":
        model, checkpoint, keys["model_kwargs.rd_ratio"] = str(trained), trained / "model_best.pth.tar", 0.25
    done = finetune(model, split, tmp_path / "run", checkpoint=checkpoint, device="cpu", overrides=keys)
    assert done.row.name == ARCH
    old = load_file(trained / "model.safetensors")
    same = {key for key, value in old.items() if torch.equal(value, started[0][key])}
    assert old.keys() - same == ({"fc.weight", "fc.bias"} if classes == "others" else set())
    recipe = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert recipe["model_kwargs"]["rd_ratio"] == 0.25
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model_args"]["rd_ratio"] == 0.25
    (tmp_path / "run" / "start.safetensors").unlink()  # a resumed run has its own weights
    more = {"epochs": 2, "seattn.early_stop": recipe["seattn"]["early_stop"]}
    assert finetune(model, split, tmp_path / "run", resume=True, device="cpu", overrides=more).row.epochs == 2


def test_labels_in_a_table_become_a_model_and_a_report(plain, tmp_path, capsys):
    table = tmp_path / "labels.csv"
    for name in COLOURS:  # of the classes only the table knows
        for path in (plain / name).iterdir():
            path.rename(plain / f"{name}{path.name}")
        (plain / name).rmdir()
    table.write_text(
        "id,breed\n" + "".join(f"{path.stem},{path.stem.rstrip('0123456789')}\n" for path in plain.iterdir())
    )
    run = tmp_path / "run"
    options = ["--epochs", "1", "--batch-size", "8", "--set", "workers=0", "--device", "cpu", "--labels", str(table)]
    assert main(["finetune", ARCH, "--data-dir", str(plain), "--out", str(run), *options]) == 0
    assert (run / "report.html").exists()
    assert json.loads((run / "config.json").read_text())["label_names"] == ["blue", "green", "red"]
    row = json.loads((run / "result.json").read_text())
    assert (row["n"], row["train_images"], row["held_out_images"]) == (6, 48, 6)
    capsys.readouterr()
    assert main(["evaluate", str(run), "--data-dir", str(plain), "--labels", str(table), "--json"]) == 2
    assert f"54 of these 60 images were used in the training of {run}" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--data-dir", str(run / "data"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 6


def test_a_killed_run_goes_on(split, tmp_path, monkeypatch):
    step, run = TrainingRun._train_epoch, tmp_path / "run"

    def killed(self, epoch):
        if epoch == 1:
            raise KeyboardInterrupt
        return step(self, epoch)

    options = {"device": "cpu", "overrides": {**FAST, "seattn.holdout": 0.2}}
    with monkeypatch.context() as patch:
        patch.setattr(TrainingRun, "_train_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            finetune(ARCH, split, run, **options)
    with pytest.raises(UserError, match="or --resume"):
        finetune(ARCH, split, run, **options)
    assert finetune(ARCH, split, run, resume=True, **options).row.epochs == 2


def test_a_model_without_weights_says_that_it_starts_from_scratch(split, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "seattn")
    monkeypatch.setattr(seattn.training.finetuning, "train", lambda *args, **kwargs: pytest.fail("stop"))
    with pytest.raises(pytest.fail.Exception):
        finetune("resnet32_cifar", split, tmp_path / "run", device="cpu")
    assert "resnet32_cifar has no trained weights: it starts from scratch" in caplog.text
    assert not (tmp_path / "run").exists()


def test_as_many_other_classes_get_a_new_classifier_and_the_same_ones_keep_it():
    cfg = timm.get_pretrained_cfg(ARCH)
    common = {"counts": [50] * 10, "pretrained": True, "same_size": True, "on_gpu": False}
    new = choose_recipe(ARCH, class_names=[f"c{i}" for i in range(10)], **common)
    assert timm.create_model(ARCH, pretrained=True, num_classes=10, **new["model_kwargs"]).num_classes == 10
    old = timm.create_model(ARCH, pretrained=True).fc.weight
    assert not old.equal(timm.create_model(ARCH, pretrained=True, num_classes=10, **new["model_kwargs"]).fc.weight)
    assert "model_kwargs" not in choose_recipe(ARCH, class_names=cfg.label_names, **common)


@pytest.mark.parametrize("on_gpu", [False, True], ids=["cpu", "gpu"])
@pytest.mark.parametrize("pretrained", [False, True], ids=["scratch", "pretrained"])
@pytest.mark.parametrize("images", [6, 60, 600, 6_000, 600_000])
def test_recipe_of_any_size_is_valid_and_sees_few_images_more_often(images, pretrained, on_gpu):
    def chosen(count):
        counts = [count // 3] * 3
        raw = choose_recipe(
            ARCH, counts=counts, class_names=["a", "b", "c"], pretrained=pretrained, same_size=False, on_gpu=on_gpu
        )
        return seattn.core.recipe.parse_recipe(raw)

    recipe, larger = chosen(images), chosen(images * 10)
    assert recipe.epochs >= larger.epochs >= 4
    assert 8 <= recipe.batch_size <= larger.batch_size
    assert recipe.lr <= larger.lr


def test_pretrained_weights_get_a_lower_rate_and_uneven_classes_are_drawn_equally_often():
    def chosen(counts, pretrained):
        options = {"pretrained": pretrained, "same_size": False, "on_gpu": False}
        return choose_recipe(ARCH, counts=counts, class_names=["a", "b"], **options)

    assert chosen([90, 90], True)["lr"] < chosen([90, 90], False)["lr"]
    assert "layer_decay" not in chosen([90, 90], False)
    assert "sampling" not in chosen([100, 10], True)["seattn"]
    assert chosen([101, 10], True)["seattn"]["sampling"] == "balanced"


def test_split_is_the_seeds_and_leaves_each_class_an_image_in_each_part(tmp_path):
    for name, count in (("blue", 3), ("green", 4), ("red", 31)):
        paint(tmp_path / "data", name, count)
    (tmp_path / "data" / "red" / "more").mkdir()
    (tmp_path / "data" / "red" / "0.png").rename(tmp_path / "data" / "red" / "more" / "1.png")  # one name, two images
    images = read_folder(tmp_path / "data", skip_bad=False)
    for root, seed in (("a", 0), ("b", 0), ("c", 1)):
        link_splits(images, tmp_path / root, seed)
    for part, counts in (("train", (1, 2, 25)), ("validation", (1, 1, 3)), ("test", (1, 1, 3))):
        found = tuple(len(list((tmp_path / "a" / part / name).iterdir())) for name in COLOURS)
        assert found == counts
    assert all(path.is_file() for path in (tmp_path / "a").rglob("*.png"))
    listed = [sorted(str(p.relative_to(tmp_path / r)) for p in (tmp_path / r).rglob("*.png")) for r in "abc"]
    assert listed[0] == listed[1] != listed[2]


def test_images_of_an_earlier_split_stay_in_it_and_new_ones_fill_up(tmp_path):
    for name in COLOURS:
        paint(tmp_path / "data", name, 20)
    link_splits(read_folder(tmp_path / "data", skip_bad=False), tmp_path / "a", 0)
    for i in range(20):
        (tmp_path / "data" / "red" / f"{i}.png").rename(tmp_path / "data" / "red" / f"old{i}.png")  # unknown now
    paint(tmp_path / "data", "blue", 50)  # 30 more
    link_splits(read_folder(tmp_path / "data", skip_bad=False), tmp_path / "b", 1, earlier=tmp_path / "a")
    for part, more in (("train", 24), ("validation", 3), ("test", 3)):
        old, new = ({name for name in names(tmp_path / root / part) if "red" not in name} for root in "ab")
        assert old <= new
        assert len(new - old) == more
        assert len(list((tmp_path / "b" / part / "red").iterdir())) == (16 if part == "train" else 2)


@pytest.mark.parametrize("form", ["{}", "local-dir:{}", "{}/last.pth.tar", "checkpoint", "checkpoint of a name"])
def test_a_net_is_not_tested_on_images_that_its_weights_were_trained_on(plain, tmp_path, monkeypatch, form):
    def no_training(recipe, root, run, **options):
        return "the row"

    keys = {"device": "cpu", "overrides": {**FAST, "epochs": 1}}
    first = finetune(ARCH, plain, tmp_path / "first", pretrained=False, seed=3, **keys).run
    monkeypatch.setattr(seattn.training.finetuning, "train", no_training)
    model, checkpoint = form.format(first), None
    if form.startswith("checkpoint"):
        model, checkpoint = ARCH if form.endswith("name") else str(first), first / "last.pth.tar"
    again = finetune(model, plain, tmp_path / "again", checkpoint=checkpoint, **keys).run
    other = finetune(ARCH, plain, tmp_path / "other", **keys).run
    for part in ("train", "validation", "test"):
        assert names(again / "data" / part) == names(first / "data" / part)
        assert names(other / "data" / part) != names(first / "data" / part)


def test_the_splits_that_a_run_has_made_are_found_for_reports_and_calibration(plain, tmp_path):
    keys = {**FAST, "epochs": 1}
    run = finetune(ARCH, plain, tmp_path / "run", pretrained=False, device="cpu", overrides=keys).run
    for name, folder in (("held-out", "validation"), ("test", "test")):
        images = open_split([read_run(run)], plain, name).images
        assert {f"{path.parent.name}/{os.path.basename(os.path.realpath(path))}" for path in images.paths} == names(
            run / "data" / folder
        )
    (tmp_path / "others" / "blue").mkdir(parents=True)
    with pytest.raises(UserError, match="no train split"):
        open_split([read_run(run)], tmp_path / "others", "held-out")


def test_a_net_is_scored_on_the_images_that_its_run_kept_for_the_test(plain, tmp_path, caplog):
    keys = {**FAST, "epochs": 1}
    run = finetune(ARCH, plain, tmp_path / "run", pretrained=False, device="cpu", overrides=keys).run
    kept = len(names(run / "data" / "test"))
    command = ["evaluate", str(run), "--data-dir", str(plain), "--workers", "0", "--out", str(tmp_path / "scores.json")]
    caplog.clear()
    assert main(command) == 0
    assert "has no test split; the splits that the run made of it are used" in caplog.text
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert (scores["n"], scores["data"]) == (kept, str(run / "data" / "test"))
    assert export_model(str(run), "torchscript", tmp_path / "net.pt", data_dir=plain).images == kept
    for model, checkpoint in ((ARCH, None), (ARCH, tmp_path / "weights.safetensors")):
        assert images_of_nets([model], checkpoint, plain, "test") == plain
    (tmp_path / "others" / "red").mkdir(parents=True)
    assert images_of_nets([str(run)], None, tmp_path / "others", "test") == tmp_path / "others"


def test_no_net_is_scored_on_the_images_that_its_run_was_trained_on(plain, tmp_path, fails, capsys):
    keys = {**FAST, "epochs": 1}
    runs = []
    for seed in (0, 0, 1):
        out = tmp_path / f"run{len(runs)}"
        runs.append(
            finetune(ARCH, plain, out, pretrained=False, device="cpu", seed=seed, overrides={**keys, "seed": seed}).run
        )
    run, twin, other = map(str, runs)
    kept = len(names(runs[0] / "data" / "test"))
    ensemble = ("--ensemble", "average", "--data-dir", str(plain), "--workers", "0")
    assert main(["evaluate", run, twin, *ensemble, "--out", str(tmp_path / "scores.json")]) == 0
    assert json.loads((tmp_path / "scores.json").read_text())["n"] == kept
    assert "the runs did not split" in fails("evaluate", run, other, *ensemble)
    assert "the runs did not split" in fails("report", run, other, "--data-dir", plain, "--split", "test")
    rows = [f"{path.relative_to(plain)},{path.parent.name}" for path in sorted(plain.glob("*/*"))]
    (tmp_path / "labels.csv").write_text("\n".join(["filename,label", *rows]))
    labels = ("--labels", tmp_path / "labels.csv", "--data-dir", plain)
    refused = f"images were used in the training of {run}; give other images, or --data-dir {run}/data"
    capsys.readouterr()
    assert main(["evaluate", run, *map(str, labels)]) == 2  # after a line on the table
    assert refused in capsys.readouterr().err
    with pytest.raises(UserError, match="were used in the training"):
        evaluate(load_model(run), plain)
    assert evaluate(load_model(run), runs[0] / "data").n == kept
    assert evaluate(load_model(run), runs[0] / "data", "train").n > kept  # asked for by its name


@pytest.mark.parametrize("kind", ["train only", "linked classes", "linked images"])
def test_the_splits_of_a_run_are_found_however_its_folder_is_made(plain, tmp_path, kind):
    folder = tmp_path / "photos"
    classes = folder / "train" if kind == "train only" else folder
    classes.mkdir(parents=True)
    for name in sorted(path.name for path in plain.iterdir()):
        if kind == "linked images":
            (classes / name).mkdir()
            for image in (plain / name).iterdir():
                (classes / name / image.name).symlink_to(image)
        else:
            (classes / name).symlink_to(plain / name)
    keys = {**FAST, "epochs": 1}
    run = finetune(ARCH, folder, tmp_path / "run", pretrained=False, device="cpu", overrides=keys).run
    assert images_of_nets([str(run)], None, folder, "test") == run / "data"
    held_out = open_split([read_run(run)], folder, "held-out")
    assert set(map(os.path.realpath, held_out.images.paths)) == {
        os.path.realpath(link) for link in (run / "data" / "validation").glob("*/*")
    }


def test_a_missing_test_split_is_made_of_train_and_validation_kept(tmp_path):
    for part, count in (("train", 10), ("valid", 4)):
        for name in COLOURS:
            paint(tmp_path / "data" / part, name, count)
    link_splits(read_folder(tmp_path / "data", skip_bad=False), tmp_path / "made", 0)
    found = {part: len(names(tmp_path / "made" / part)) for part in ("train", "validation", "test")}
    assert found == {"train": 27, "validation": 12, "test": 3}


def empty(data):
    for path in data.rglob("*.png"):
        path.unlink()


def one_class(data):
    for name in ("green", "red"):
        (data / name).rename(data.parent / name)


def too_few(data):
    for i in range(18):
        (data / "red" / f"{i}.png").unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (empty, "no images in"),
        (one_class, "has one class, 'blue'; it should hold two or more"),
        (too_few, "class 'red' has 2 images and needs at least 3"),
        (lambda data: (data / "yellow").mkdir(), "yellow holds no images"),
        (
            lambda data: (data / "red" / "x.png").write_bytes(b"no"),
            "1 of 61 images cannot be read, the first is .*x.png",
        ),
        (lambda data: [(data / name).rename(data / to) for name, to in (("red", "test"),)], "test split but no train"),
        (lambda data: data.rename(data.parent / "elsewhere"), "no data folder"),
    ],
    ids=["empty", "one class", "too few", "empty class", "unreadable", "no train", "missing"],
)
def test_bad_folder_is_one_line_and_leaves_nothing(plain, tmp_path, capsys, change, message):
    change(plain)
    assert main(["finetune", ARCH, "--data-dir", str(plain), "--out", str(tmp_path / "run"), "--device", "cpu"]) == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith("seattn: ")
    assert re.search(message, err)
    assert not (tmp_path / "run").exists()


def test_unreadable_images_can_be_left_out(plain, caplog):
    (plain / "red" / "x.png").write_bytes(b"no")
    with pytest.raises(UserError, match="--skip-bad"):
        read_folder(plain, skip_bad=False)
    images = read_folder(plain, skip_bad=True)
    assert (images.skipped, len(images.splits["train"])) == (1, 60)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["se_resnet20_cifr"], "unknown model 'se_resnet20_cifr'"),
        ([ARCH, "--set", "lr"], "--set takes KEY=VALUE, for example lr=0.05 or seattn.cutout=8; got 'lr'"),
        ([ARCH, "--set", "lrr=1"], "unknown key 'lrr'; did you mean 'lr'"),
        ([ARCH, "--set", "lr=[1"], "is not valid YAML"),
        ([ARCH, "--device", "nowhere"], "device 'nowhere' cannot be used here"),
    ],
)
def test_bad_arguments_are_one_line_and_leave_nothing(plain, tmp_path, capsys, args, message):
    assert main(["finetune", *args, "--data-dir", str(plain), "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_a_start_that_fails_leaves_nothing_in_the_way_of_the_next_one(plain, tmp_path, fails):
    out = ("--data-dir", plain, "--device", "cpu", "--out", tmp_path / "run")
    assert main(["finetune", ARCH, *map(str, out), "--from-scratch", "--batch-size", "5000"]) == 2
    assert not (tmp_path / "run").exists()
    weights = ("--from-scratch", "--checkpoint", tmp_path / "weights.safetensors")
    assert "exclude each other; give one" in fails("finetune", ARCH, *out, *weights)
    (tmp_path / "run").write_text("mine")
    assert "is a file; give --out the path of a new folder" in fails("finetune", ARCH, *out, "--from-scratch")
