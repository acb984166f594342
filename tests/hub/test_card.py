"""Cards and the README's table are what the rows say, and rows are what runs wrote."""

import dataclasses
import hashlib
import json
import re
import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from benchmarks import record, render
from benchmarks.evidence.rows import RECIPES, append_row, read_classes, read_rows, read_run, shipped_row, write_classes
from benchmarks.evidence.ship import held_out_temperature, place, score_again
from benchmarks.render import RESULTS, all_facts, render_readme, render_results, render_weights
from benchmarks.zoo.entries import Entry
from seattn.core.errors import UserError
from seattn.core.recipe import OurKeys, load_recipe
from seattn.data.folders.files import list_files
from seattn.data.images import hold_out
from seattn.data.samples import load_sample
from seattn.evaluation.probabilities.temperature import calibrate
from seattn.evaluation.scoring import evaluate
from seattn.hub.card import picture_name, render_card, render_table, runs_of_recipe
from seattn.hub.facts import ClassResults, Facts, packaged_facts
from seattn.hub.picture import describe, render_picture
from seattn.models import models_with_weights
from seattn.models._pretrained import WEIGHTS, weight_index
from seattn.models.load import load_model, set_temperature
from tests.helpers import runs
from tests.helpers.colours import write_colours

ROOT = Path(__file__).parents[2]
ROW = dataclasses.replace(
    runs.ROW, name="se_resnet20_cifar.cifar10", dataset="CIFAR-10", top5=0.9, recipe="se_resnet20_cifar.cifar10"
)
CFG = timm.get_pretrained_cfg(ROW.name)
CIFAR10 = CFG.label_names
RECIPE = ROOT / "zoo_configs" / "se_resnet20_cifar.cifar10.yaml"
FACTS = Facts(ROW.name, ROW, (ROW,), load_recipe(RECIPE))


@pytest.fixture
def run(tmp_path):
    """A finished run of our recipe with weights of its own and a row that says what they score on `tmp_path`/data."""
    write_colours(tmp_path / "data", dict.fromkeys(CIFAR10, 0), {"test": [3] * 10})
    folder = tmp_path / "run"
    folder.mkdir()
    torch.manual_seed(0)
    model = timm.create_model("se_resnet20_cifar.cifar10").eval()
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    found = evaluate(model, tmp_path / "data" / "test")
    row = dataclasses.replace(ROW, n=found.n, top1=found.top1, held_out_images=0, held_out_top1=None)
    (folder / "result.json").write_text(json.dumps(asdict(row)))
    dataclasses.replace(load_recipe(RECIPE), seed=4).write(folder / "recipe.yaml")
    return folder


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The rows and the shipped weights of a project of its own."""
    (tmp_path / "index.json").write_text('{"z": {"file": "z.safetensors", "sha256": "0"}}')
    monkeypatch.setattr(record, "append_row", partial(append_row, path=tmp_path / "accuracy.csv"))
    monkeypatch.setattr(record, "read_rows", partial(read_rows, path=tmp_path / "accuracy.csv"))
    monkeypatch.setattr(record, "write_classes", partial(write_classes, folder=tmp_path / "classes"))
    monkeypatch.setattr(record, "place", partial(place, weights=tmp_path))
    monkeypatch.setattr(record, "read_queue", lambda: [])
    return tmp_path


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """400 images of the packaged sample as a train split."""
    folder, sample = tmp_path_factory.mktemp("photos"), load_sample("cifar10")
    for i in range(400):
        path = folder / "train" / sample.class_names[sample.labels[i]] / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sample.images[i]).save(path)
    return folder


def test_the_temperature_is_fitted_on_the_images_that_the_run_held_out(photos, capsys):
    recipe = dataclasses.replace(load_recipe(RECIPE), seattn=OurKeys(holdout=0.5, holdout_seed=1))
    path = WEIGHTS / f"{ROW.name}.safetensors"
    _, images = hold_out(list_files(photos / "train"), 0.5, 1)
    fitted = calibrate(load_model(ROW.name, checkpoint=path), images)
    row = dataclasses.replace(ROW, held_out_images=200, held_out_top1=fitted.before.top1)
    assert held_out_temperature(row, recipe, path, photos) == fitted.temperature != 1
    assert f"temperature {fitted.temperature:g}" in capsys.readouterr().out
    assert held_out_temperature(dataclasses.replace(row, held_out_top1=None), recipe, path, photos) is None
    with pytest.raises(UserError, match="has no validation split, on which the run of"):
        held_out_temperature(row, dataclasses.replace(recipe, seattn=OurKeys(holdout=0)), path, photos)
    for other in ({"held_out_top1": 0.1}, {"held_out_images": 199}):
        with pytest.raises(UserError, match="give the run's own data"):
            held_out_temperature(dataclasses.replace(row, **other), recipe, path, photos)


def test_record_writes_the_temperature_beside_the_digest(project, photos, monkeypatch, capsys):
    source = WEIGHTS / f"{ROW.name}.safetensors"
    shutil.copyfile(source, project / source.name)
    monkeypatch.setattr(record, "WEIGHTS", project)
    monkeypatch.setattr(record, "read_classes", lambda name: None)
    monkeypatch.setattr(record, "held_out_temperature", lambda *arguments: 1.5)
    append_row(ROW, path=project / "accuracy.csv")
    assert record.main(["--temperature", ROW.name, "--data-dir", str(photos)]) == 0
    entry = json.loads((project / "index.json").read_text())[ROW.name]
    assert entry == {"file": source.name, "sha256": weight_index()[ROW.name]["sha256"], "temperature": 1.5}
    assert record.main(["--temperature", ROW.name]) == 2
    assert record.main(["--classes", ROW.name.partition(".")[0], "--data-dir", str(photos)]) == 2
    assert f"did you mean '{ROW.name}'?" in capsys.readouterr().err
    monkeypatch.setattr(record, "held_out_temperature", lambda *arguments: None)
    assert record.main(["--temperature", ROW.name, "--data-dir", str(photos)]) == 2
    assert json.loads((project / "index.json").read_text())[ROW.name] == entry


def test_a_run_becomes_a_row_that_names_its_recipe_whatever_the_seed(project, run):
    assert record.main([str(run)]) == 0
    (row,) = read_rows(project / "accuracy.csv")
    assert row == dataclasses.replace(read_run(run), recipe=RECIPE.stem)
    assert row.weights_dtype == "float32"
    assert not list(project.glob("*.safetensors"))


def test_rows_are_appended_and_none_twice(project, run, capsys):
    assert record.main([str(run)]) == 0
    assert record.main([str(run)]) == 2
    assert re.search("already has this row of", capsys.readouterr().err)
    other = dataclasses.replace(read_run(run), seed=5)
    (run / "result.json").write_text(json.dumps(asdict(other)))
    assert record.main([str(run)]) == 0
    assert [row.seed for row in read_rows(project / "accuracy.csv")] == [4, 5]


def test_weights_ship_halved_and_the_row_is_of_what_ships(project, run):
    assert record.main(["--ship", "--data-dir", str(project / "data"), str(run)]) == 0
    path = project / f"{ROW.name}.safetensors"
    shipped, trained = load_file(path), load_file(run / "model.safetensors")
    assert set(shipped) == set(trained)
    for key, tensor in trained.items():
        assert shipped[key].dtype == (torch.half if tensor.ndim >= 2 else tensor.dtype), key
        torch.testing.assert_close(shipped[key].to(tensor.dtype), tensor, rtol=1e-3, atol=1e-7)
    index = json.loads((project / "index.json").read_text())
    assert list(index) == [ROW.name, "z"]
    assert index[ROW.name] == {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}

    (row,) = read_rows(project / "accuracy.csv")
    found = evaluate(load_model(ROW.name, checkpoint=path), project / "data" / "test")
    assert (row.top1, row.loss, row.weights_dtype) == (found.top1, found.loss, "float16")
    classes = read_classes(ROW.name, project / "classes")
    assert classes.correct / classes.n == found.top1
    assert classes.confusion == found.confusion
    assert classes.sha256 == index[ROW.name]["sha256"]
    card = render_card(Facts(ROW.name, row, (row,), load_recipe(RECIPE), classes), CFG)
    assert "stored in half precision and were scored as stored" in card


def row(**changes):
    """Change values of a run's row."""

    def harm(run):
        (run / "result.json").write_text(json.dumps(asdict(dataclasses.replace(read_run(run), **changes))))

    return harm


def large(run):
    tensors = load_file(run / "model.safetensors")
    tensors["conv1.weight"][0, 0, 0, 0] = 1e6
    save_file(tensors, run / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (row(split="held-out"), "was scored on its held-out part"),
        (row(top1=0.9), "give the run's own data"),
        (row(n=10_000), "has 30 test images, the run was scored on 10000"),
        (row(loss=float("nan")), "loss must be a finite number, got nan"),
        (row(name="resnet20_cifar.cifar10"), "mixes two runs: result.json is of resnet20_cifar.cifar10, recipe"),
        (
            lambda run: dataclasses.replace(load_recipe(RECIPE), lr=0.3).write(run / "recipe.yaml"),
            "followed no recipe of",
        ),
        (lambda run: (run / "model.safetensors").write_bytes(b"weights"), "cannot read the weights"),
        (large, "conv1.weight has weights above 65504, the largest number of float16"),
        (lambda run: (run / "result.json").unlink(), "holds no finished run"),
        (lambda run: (run / "recipe.yaml").unlink(), "cannot read recipe"),
        (lambda run: (run / "model.safetensors").unlink(), "cannot read the weights"),
    ],
)
def test_what_cannot_ship_is_one_line_and_leaves_nothing(project, run, capsys, harm, message):
    harm(run)
    assert record.main(["--ship", "--data-dir", str(project / "data"), str(run)]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (project / "accuracy.csv").exists()
    assert not list(project.glob("*.safetensors"))
    assert "sha256" in (project / "index.json").read_text()


@pytest.mark.parametrize(
    ("points", "message"),
    [({0: -0.1}, ""), ({0: 0.1}, "below the floor of"), ({0: None}, "has no floor for"), ({0: None, 4: -0.1}, "")],
    ids=["above", "below", "not published", "of its own seed"],
)
def test_weights_below_their_floor_do_not_ship(project, run, monkeypatch, capsys, points, message):
    top1 = 100 * read_run(run).top1
    queue = [
        Entry(recipe=RECIPE.stem, seed=seed, data="x", holdout=0, floor=None if change is None else top1 + change)
        for seed, change in points.items()
    ]
    monkeypatch.setattr(record, "read_queue", lambda: queue)
    assert record.main(["--ship", "--data-dir", str(project / "data"), str(run)]) == (2 if message else 0)
    assert message in capsys.readouterr().err
    assert (project / "accuracy.csv").exists() == (not message)
    assert bool(list(project.glob("*.safetensors"))) == (not message)


def test_a_recipe_that_the_queue_does_not_list_has_the_floor_of_its_net(project, run, monkeypatch, capsys):
    top1 = 100 * read_run(run).top1
    another = Entry(recipe="se_resnet20_cifar.cifar10.zoo", seed=0, data="x", holdout=0, floor=top1 + 0.1)
    monkeypatch.setattr(record, "read_queue", lambda: [dataclasses.replace(another, floor=None), another])
    assert record.main(["--ship", "--data-dir", str(project / "data"), str(run)]) == 2
    assert "below the floor of" in capsys.readouterr().err
    another = dataclasses.replace(another, recipe="resnet20_cifar.cifar10.zoo")
    monkeypatch.setattr(record, "read_queue", lambda: [another])
    assert record.main(["--ship", "--data-dir", str(project / "data"), str(run)]) == 0


def test_images_of_as_many_other_classes_do_not_ship(project, run, capsys):
    (project / "data" / "test" / CIFAR10[0]).rename(project / "data" / "test" / "zebra")
    assert record.main(["--ship", "--data-dir", str(project / "data"), str(run)]) == 2
    assert f"has classes that {ROW.name} does not know: zebra; it knows airplane" in capsys.readouterr().err
    assert not (project / "accuracy.csv").exists()


def test_one_folder_in_two_spellings_is_one_run_and_a_copy_of_it_is_refused(project, run, capsys):
    shutil.copytree(run, project / "copy")
    assert record.main([str(run), str(project / "copy")]) == 2
    assert "or two runs have it" in capsys.readouterr().err
    assert not (project / "accuracy.csv").exists()
    assert record.main([str(run), str(project / "data" / ".." / "run")]) == 0
    assert len(read_rows(project / "accuracy.csv")) == 1


@pytest.mark.parametrize("step", ["place", "write_classes", "append_row"])
def test_shipping_that_was_interrupted_can_be_repeated(project, run, monkeypatch, capsys, step):
    """A full disk at each of the three steps."""
    ship = ["--ship", "--data-dir", str(project / "data"), str(run)]
    with monkeypatch.context() as patch:
        patch.setattr(record, step, lambda *arguments: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        assert record.main(ship) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert not (project / "accuracy.csv").exists()
    assert record.main(ship) == 0
    index = json.loads((project / "index.json").read_text())
    assert read_classes(ROW.name, project / "classes").sha256 == index[ROW.name]["sha256"]
    assert len(read_rows(project / "accuracy.csv")) == 1


def test_of_several_runs_all_are_written_or_none(project, run, monkeypatch, capsys):
    other = shutil.copytree(run, project / "other")
    plain = timm.create_model("resnet20_cifar.cifar10").eval()
    save_file(plain.state_dict(), other / "model.safetensors", metadata={"format": "pt"})
    recipe = load_recipe(ROOT / "zoo_configs" / "resnet20_cifar.cifar10.yaml")
    dataclasses.replace(recipe, seed=4).write(other / "recipe.yaml")
    top1 = evaluate(plain, project / "data" / "test").top1
    row = dataclasses.replace(read_run(run), name="resnet20_cifar.cifar10", top1=top1)
    (other / "result.json").write_text(json.dumps(asdict(row)))
    floor = Entry(recipe="resnet20_cifar.cifar10", seed=4, data="x", holdout=0, floor=100.0)
    monkeypatch.setattr(record, "read_queue", lambda: [floor])
    ship = ["--ship", "--data-dir", str(project / "data"), str(run), str(other)]
    assert record.main(ship) == 2
    assert "resnet20_cifar.cifar10 has" in capsys.readouterr().err
    assert not (project / "accuracy.csv").exists()
    monkeypatch.setattr(record, "read_queue", lambda: [dataclasses.replace(floor, floor=0.0)])
    assert record.main(ship) == 0
    assert {row.name for row in read_rows(project / "accuracy.csv")} == {ROW.name, "resnet20_cifar.cifar10"}


def test_a_second_seed_without_held_out_images_does_not_ship(project, run, capsys):
    ship = ["--ship", "--data-dir", str(project / "data"), str(run)]
    assert record.main(ship) == 0
    (run / "result.json").write_text(json.dumps(asdict(dataclasses.replace(read_run(run), seed=5))))
    dataclasses.replace(load_recipe(RECIPE), seed=5).write(run / "recipe.yaml")
    assert record.main(ship) == 2
    assert "one of the runs of the seeds 4 and 5 held out no images" in capsys.readouterr().err
    assert read_classes(ROW.name, project / "classes").seed == 4


def test_shipping_asks_for_the_test_split(run, capsys):
    assert record.main(["--ship", str(run)]) == 2
    assert "give --data-dir" in capsys.readouterr().err


def test_card_says_what_the_row_says():
    card = render_card(FACTS, CFG)
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "timm"
    assert front["pipeline_tag"] == "image-classification"
    assert "transformers" not in front["tags"]
    result = front["model-index"][0]["results"][0]
    assert result["metrics"][0]["value"] == 0.5
    assert result["dataset"]["split"] == "test"
    for fact in ("50.00 %", "43.13 to 56.87", "| 200 |", "seed 4", "7 epochs of 900 images", "1 h 7 min", "abc1234"):
        assert fact in card


def test_table_has_a_line_a_row():
    table = render_table([FACTS, FACTS], {FACTS.name: "93.99 SE-ResNet-20 ([x](https://x))"})
    assert table.count("`se_resnet20_cifar.cifar10`") == 2
    assert "50.00 (43.13 to 56.87) | 93.99 SE-ResNet-20 ([x](https://x)) | 4 |" in table
    assert "50.00 (43.13 to 56.87) | – | 4 |" in render_table([FACTS], {})


def test_committed_cards_pictures_and_facts_are_the_rendered_ones():
    texts = render_weights()
    for path, text in texts.items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} differs from its rows: make cards"
    cards = {path for path in texts if path.suffix == ".md"}
    assert sorted(path.stem for path in cards) == models_with_weights()
    assert set((ROOT / "hub_cards").glob("*.*.md")) == cards
    for facts in all_facts():
        assert facts == packaged_facts(facts.name)
        assert facts.classes is not None, f"{facts.name}: python -m benchmarks.record --classes {facts.name}"
        assert facts.classes.sha256 == weight_index()[facts.name]["sha256"]
        assert (facts.classes.n, facts.classes.correct / facts.classes.n) == (facts.row.n, facts.row.top1)
        assert facts.classes.class_names == timm.get_pretrained_cfg(facts.name).label_names
        runs = runs_of_recipe(facts)
        if len(runs) > 1:  # only images that were held out may choose among runs
            assert facts.row.held_out_top1 == max(row.held_out_top1 for row in runs), facts.name
        assert picture_name(facts.name) in texts[ROOT / "hub_cards" / f"{facts.name}.md"]
        assert describe(facts.classes) in texts[ROOT / "hub_cards" / picture_name(facts.name)]


def test_a_recipe_that_was_changed_after_its_row_is_not_rendered(monkeypatch):
    facts = next(facts for facts in all_facts() if facts.name == ROW.name)
    changed = dataclasses.replace(facts, recipe=dataclasses.replace(facts.recipe, lr=0.3))
    monkeypatch.setattr(render, "all_facts", lambda: [changed])
    with pytest.raises(UserError, match=rf"{facts.row.recipe}\.yaml differs from the recipe that trained {ROW.name}"):
        render_weights()
    newer = dataclasses.replace(facts.row, seed=1)  # of the changed recipe
    monkeypatch.setattr(
        render, "all_facts", lambda: [dataclasses.replace(changed, row=newer, rows=(*facts.rows, newer))]
    )
    assert render_weights()


def test_committed_readme_table_is_the_rendered_one():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert render_readme(text) == text, "README.md differs from the rows: make cards"
    assert render_results() == RESULTS.read_text(encoding="utf-8"), f"{RESULTS} differs from the rows: make cards"
    assert all(f"`{name}`" in text for name in models_with_weights())


@pytest.mark.parametrize("recipe", ["", "another_recipe"], ids=["before its last change", "another"])
def test_a_card_names_the_scores_that_were_known_when_the_recipe_was_written(recipe):
    other = dataclasses.replace(ROW, recipe=recipe, epochs=ROW.epochs - 1, top1=0.25)
    users = dataclasses.replace(ROW, recipe="")
    elsewhere = dataclasses.replace(other, split="validation")
    for row, rows, known in [
        (ROW, (other, ROW), True),
        (ROW, (ROW, other), not recipe),  # measured later, or changed later
        (ROW, (elsewhere, ROW), False),
        (users, (dataclasses.replace(other, recipe=""), users), False),
    ]:
        card = render_card(Facts(ROW.name, row, rows, load_recipe(RECIPE)), CFG)
        assert (f"25.00 % after {ROW.epochs - 1} epochs" in card) == known
        assert ("Nothing else was chosen by the test score" in card) == known


def test_a_card_names_the_known_scores_of_the_same_net_with_other_attention():
    plain = dataclasses.replace(ROW, name="resnet20_cifar.cifar10", epochs=7, top1=0.25)
    earlier = dataclasses.replace(plain, recipe="resnet20_cifar.cifar10.short")
    sister = dataclasses.replace(plain, recipe="resnet20_cifar.cifar10")  # by this recipe, which is not an earlier one
    for row, known in [(earlier, True), (sister, False)]:
        card = render_card(dataclasses.replace(FACTS, rows=(row, ROW)), CFG)
        sentence = "25.00 % after 7 epochs (`resnet20_cifar.cifar10`)"
        assert (sentence in card, "earlier recipe" in card) == (known, known)
    texts = render_weights()
    card = texts[ROOT / "hub_cards" / "resnet20_cifar.cifar10.md"]
    assert "91.13 % after 60 epochs (`se_resnet20_cifar.cifar10`)" in card
    assert "92.64" not in card  # of SE-ResNet-20 by this recipe


def test_a_card_says_that_a_recipe_was_written_because_the_one_before_missed_the_floor():
    tried = dataclasses.replace(ROW, recipe=f"{ROW.name}.zoo", weights_dtype="float32", top1=0.25)
    facts = dataclasses.replace(FACTS, row=dataclasses.replace(ROW, recipe=f"{ROW.name}.longer.zoo"))
    tried = dataclasses.replace(tried, epochs=ROW.epochs - 1)
    others = ({"weights_dtype": "float16"}, {"top1": 0.75}, {"epochs": ROW.epochs})
    for row, missed in [(tried, True), *((dataclasses.replace(tried, **other), False) for other in others)]:
        card = render_card(dataclasses.replace(facts, rows=(row, facts.row)), CFG)
        assert "Weights below a floor that was set before the training are not published" in card
        assert (": 25.00 % was below it, and for that reason this recipe" in card) == missed
        assert "Nothing else was chosen by the test score" in card
    card = render_weights()[ROOT / "hub_cards" / "se_resnet18_cifar.cifar10.md"]
    assert "down linearly over 42 epochs, then once more down from 0.06 over 18 epochs, weight decay" in card


def test_every_row_was_measured_on_a_whole_test_split_and_its_interval_holds_its_top1():
    sizes = {"CIFAR-10": 10_000, "CIFAR-100": 10_000, "Butterfly-75": 653, "Butterfly-100": 500}
    for row in read_rows():
        assert row.n == sizes[row.dataset]
        assert row.split == "test"
        assert row.top1_low < row.top1 < row.top1_high
        if row.recipe:  # none: a recipe as it was before its last change
            assert load_recipe(RECIPES / f"{row.recipe}.yaml").model == row.name
        assert row.conditions.commit
        assert not row.conditions.commit.endswith("+")


def results(names, wrong=0):
    """Ten images a class, `wrong` of them of the first class taken for the second."""
    confusion = [[10 * (i == j) for j in range(len(names))] for i in range(len(names))]
    confusion[0][0], confusion[0][1] = 10 - wrong, wrong
    n = 10 * len(names)
    bins = ((0, 0.0, 0.0),) * 14 + ((n, 0.99, (n - wrong) / n),)
    return ClassResults(
        ROW.name, 4, ROW.recipe, "0" * 64, "test", tuple(names), tuple(map(tuple, confusion)), bins, ROW.conditions
    )


def test_a_card_shows_each_class_the_picture_and_the_calibration():
    card = render_card(dataclasses.replace(FACTS, classes=results(CIFAR10, 4)), CFG)
    assert "| airplane | 60.00 % | 31 to 83 | 100.00 % | 75.00 % | 10 |" in card
    assert "| automobile | 100.00 % | 72 to 100 | 71.43 % | 83.33 % | 10 |" in card
    assert card.index("| airplane |") < card.index("| truck |")
    assert f"]({ROW.name}.confusion.svg)" in card
    assert "airplane taken for automobile, 4 times." in card
    assert "overconfident: its mean confidence is 99.00 %, its accuracy 96.00 %" in card
    assert "| 93 to 100 % | 100 | 99.00 % | 96.00 % |" in card


def test_many_classes_are_folded_behind_the_hardest():
    names = [f"species {i}" for i in range(75)]
    card = render_card(dataclasses.replace(FACTS, classes=results(names, 4)), CFG)
    shown, others = card.split("<summary>The other 60</summary>")
    assert shown.count("| species ") == 15
    assert others.split("</details>")[0].count("| species ") == 60
    assert shown.index("| species 0 |") < shown.index("| species 1 |") < shown.index("| species 2 |")  # 60, 100 %; F1
    assert "numbered in the order of the outputs" in card


def test_a_card_of_cifar100_has_the_accuracy_of_superclasses():
    names = timm.get_pretrained_cfg("se_resnet20_cifar.cifar100").label_names
    facts = dataclasses.replace(FACTS, classes=results(names, 4))  # four apples are taken for fish
    card = render_card(facts, CFG)
    assert "99.60 % (98.98 to 99.84) of the images were predicted as a class of the right superclass, of 20" in card
    assert "superclass" not in render_card(dataclasses.replace(FACTS, classes=results(CIFAR10, 4)), CFG)


def test_a_card_names_the_temperature():
    facts = dataclasses.replace(FACTS, classes=results(CIFAR10, 4))
    assert "divide the logits by the temperature 0.54, which was fitted on" in render_card(facts, CFG, temperature=0.54)
    assert "divide the logits" not in render_card(facts, CFG)
    assert "With it, the expected" not in render_card(facts, CFG, temperature=0.54)
    calibrated = dataclasses.replace(results(CIFAR10, 4), temperature=0.54, calibrated_ece=0.0123)
    card = render_card(dataclasses.replace(FACTS, classes=calibrated), CFG, temperature=0.54)
    assert "With it, the expected calibration error on the test images is 1.23 %. The other figures here" in card


def test_the_results_by_class_have_the_temperature_that_ships():
    for name in models_with_weights():
        classes = read_classes(name)
        assert classes.temperature == weight_index()[name].get("temperature"), name
        assert (classes.calibrated_ece is None) == (classes.temperature is None), name


@pytest.mark.parametrize("split", ["test", "validation"])
def test_a_validation_split_of_the_sets_own_is_no_part_of_the_training_images(split):
    row = dataclasses.replace(ROW, split=split, train_images=900, held_out_images=90, held_out_top1=0.5)
    recipe = load_recipe(RECIPE, {"seattn.holdout": 0})
    card = render_card(Facts(ROW.name, row, (row,), recipe), CFG)
    assert "90 images of the validation split" in card
    assert "`DIR/train/CLASS/IMAGE`, `DIR/validation/CLASS/IMAGE` and `DIR/test/CLASS/IMAGE`" in card
    assert "990" not in card
    part = render_card(Facts(ROW.name, row, (row,), load_recipe(RECIPE)), CFG)
    assert "90 of 990" in part
    assert "DIR/validation" not in part


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"mixup": 0.2}, "mixup in 100% of the batches"),
        ({"cutmix": 1.0, "mixup_prob": 0.3}, "CutMix in 30% of the batches"),
        ({"mixup": 0.2, "cutmix": 1.0, "mixup_mode": "elem"}, "mixup or CutMix in 100% of the images"),
        ({"reprob": 0.1}, "random erasing in 10% of the images"),
        ({"seattn.policy": "trivial"}, "TrivialAugment,"),
        ({"seattn.flips": "alternate"}, "each image mirrored in every second epoch"),
    ],
    ids=str,
)
def test_a_card_says_how_the_images_were_changed(keys, text):
    card = render_card(dataclasses.replace(FACTS, recipe=load_recipe(RECIPE, keys)), CFG)
    assert text in card


def test_a_card_of_several_seeds_says_which_ships():
    others = [dataclasses.replace(ROW, seed=seed, top1=top1) for seed, top1 in ((5, 0.52), (6, 0.48))]
    foreign = dataclasses.replace(ROW, seed=7, top1=0.1, recipe="another")
    rows = (dataclasses.replace(ROW, top1=0.4, weights_dtype="float32"), ROW, *others, foreign)
    facts = dataclasses.replace(FACTS, rows=rows)
    card = render_card(facts, CFG)
    assert "3 runs that differ only in the seed have 50.00 ± 2.00 %" in card
    assert "50.00 % (seed 4), 52.00 % (seed 5), 48.00 % (seed 6)" in card
    assert "The weights are those of seed 4" in card
    assert "; 3 seeds 50.00 ± 2.00 |" in render_table([facts], {})


def test_of_several_runs_the_best_on_the_held_out_images_ships(project, run, monkeypatch, capsys):
    monkeypatch.setattr(record, "held_out_temperature", lambda *arguments: None)
    row = dataclasses.replace(read_run(run), held_out_images=5000, held_out_top1=0.5)
    (run / "result.json").write_text(json.dumps(asdict(row)))
    better = shutil.copytree(run, project / "better")
    (better / "result.json").write_text(json.dumps(asdict(dataclasses.replace(row, seed=5, held_out_top1=0.52))))
    ship = ["--ship", "--data-dir", str(project / "data")]
    assert record.main([*ship, str(run), str(better)]) == 0
    assert read_classes(ROW.name, project / "classes").seed == 5
    rows = read_rows(project / "accuracy.csv")
    assert [(row.seed, row.weights_dtype) for row in rows] == [(4, "float32"), (5, "float16")]
    assert shipped_row(ROW.name, rows, read_classes(ROW.name, project / "classes")) == rows[1]
    capsys.readouterr()
    assert record.main([*ship, str(run)]) == 2
    assert "the run of seed 5 was better on the held-out images" in capsys.readouterr().err
    assert len(read_rows(project / "accuracy.csv")) == 2


def test_weights_that_ship_are_looked_at_once_more(project, run, monkeypatch, capsys):
    ship = ["--data-dir", str(project / "data")]
    assert record.main(["--ship", *ship, str(run)]) == 0
    first = (project / "classes" / f"{ROW.name}.json").read_text()
    monkeypatch.setattr(record, "score_again", partial(score_again, weights=project))
    monkeypatch.setattr(record, "read_classes", partial(read_classes, folder=project / "classes"))
    (project / "classes" / f"{ROW.name}.json").unlink()
    assert record.main(["--classes", ROW.name, *ship]) == 0
    assert (project / "classes" / f"{ROW.name}.json").read_text() == first
    before = read_classes(ROW.name, project / "classes")
    place(project / f"{ROW.name}.safetensors", ROW.name, 1.5, project)
    assert record.main(["--classes", ROW.name, *ship]) == 0
    after = read_classes(ROW.name, project / "classes")
    model = load_model(ROW.name, checkpoint=project / f"{ROW.name}.safetensors")
    set_temperature(model, 1.5)
    assert after.calibrated_ece == evaluate(model, project / "data").ece
    assert after == dataclasses.replace(before, temperature=1.5, calibrated_ece=after.calibrated_ece)
    assert record.main(["--classes", "resnet32_cifar.cifar10", *ship]) == 2
    assert "no row of" in capsys.readouterr().err


def test_pictures_are_the_same_bytes_and_those_of_many_classes_small():
    few, many = results(CIFAR10, 4), results([f"species {i}" for i in range(75)], 4)
    assert render_picture(few) == render_picture(few)
    assert len(render_picture(many)) < 100_000
    assert "airplane taken for automobile 4 times" in render_picture(few)
