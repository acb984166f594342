"""A staged folder is whole, loads as the package's weights do, and is the same bytes each time."""

import dataclasses
import json
import shutil
import subprocess

import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file

import seattn
from benchmarks.evidence.rows import RECIPES
from seattn.cli.main import run
from seattn.core.errors import UserError
from seattn.core.recipe import load_recipe
from seattn.data.samples import load_sample
from seattn.data.transforms import eval_transform
from seattn.hub.staging import stage
from seattn.models import models_with_weights
from seattn.models._pretrained import WEIGHTS
from seattn.models.load import load_model
from tests.helpers.hub.user import NAME, read
from tests.helpers.runs import write_run


def test_the_folder_has_each_file_and_what_it_says_of_itself(shipped):
    files = read(shipped)
    assert sorted(files) == [
        *("README.md", "SHA256SUMS", "config.json", "model.safetensors", "recipe.yaml", "results.json"),
        *(f"{NAME}.confusion.svg", "test/golden.safetensors"),
    ]
    assert (shipped / "model.safetensors").read_bytes() == (WEIGHTS / f"{NAME}.safetensors").read_bytes()
    checked = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=shipped, capture_output=True)
    assert checked.returncode == 0
    assert len({path.stat().st_mode for path in shipped.rglob("*") if path.is_file()}) == 1
    assert checked.stdout.count(b": OK") == len(files) - 1
    for path, content in files.items():
        if not path.endswith(".safetensors"):
            assert str(shipped.parent).encode() not in content
            assert b"/site-packages" not in content


@pytest.mark.parametrize("name", models_with_weights())
def test_a_staged_folder_gives_the_packages_logits_bit_for_bit(name, tmp_path):
    folder = tmp_path / "stage"
    files = stage(name, folder)
    assert {str(file) for file in files} == set(read(folder))
    packaged = timm.create_model(name, pretrained=True).eval()
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    x = load_file(folder / "test" / "golden.safetensors")["input"]
    with torch.inference_mode():
        assert torch.equal(loaded(x), packaged(x))
    assert str(eval_transform(loaded)) == str(eval_transform(packaged))
    assert tuple(loaded.pretrained_cfg["label_names"]) == packaged.pretrained_cfg["label_names"]
    assert loaded.pretrained_cfg["tag"] == name.partition(".")[2]
    assert run(["hub", "verify", str(folder)]) == 0


def test_config_has_plain_values_and_no_place_of_weights(shipped):
    config = json.loads((shipped / "config.json").read_text())
    assert config["architecture"] == "se_resnet20_cifar"
    assert (config["num_classes"], config["num_features"]) == (10, 64)
    assert config["label_names"] == list(load_sample("cifar10").class_names)
    assert config["pretrained_cfg"]["tag"] == "cifar10"
    assert not {"file", "url", "hf_hub_id", "source", "architecture"} & set(config["pretrained_cfg"])


def test_golden_tensors_are_the_references_on_real_images(shipped):
    golden = load_file(shipped / "test" / "golden.safetensors")
    assert {key: tuple(value.shape) for key, value in golden.items()} == {
        "input": (4, 3, 32, 32),
        "features": (4, 64),
        "logits": (4, 10),
    }
    model = load_model(NAME)
    cfg = model.pretrained_cfg
    pixels = torch.from_numpy(load_sample("cifar10").images[:4]).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    torch.testing.assert_close(golden["input"], (pixels - mean) / std)
    with seattn.set_kernels("reference"), torch.inference_mode():
        torch.testing.assert_close(golden["logits"], model(golden["input"]), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(golden["logits"], model.fc(golden["features"]), rtol=1e-5, atol=1e-5)


def test_the_recipe_in_the_folder_is_that_of_the_weights(shipped):
    recipe, results = (
        load_recipe(shipped / "recipe.yaml"),
        json.loads((shipped / "results.json").read_text()),
    )
    zoo = load_recipe(RECIPES / f"{results['row']['recipe']}.yaml")
    assert recipe == dataclasses.replace(zoo, seed=results["row"]["seed"])
    assert yaml.safe_load((shipped / "README.md").read_text().split("---\n")[1])["model-index"][0]["name"] == NAME


def test_staging_again_gives_the_same_bytes_in_place(shipped, tmp_path):
    folder = shutil.copytree(shipped, tmp_path / "stage")
    stage("se_resnet20_cifar", folder)
    assert read(folder) == read(shipped)
    assert list(tmp_path.iterdir()) == [folder]


def test_a_users_run_is_staged_under_a_name_of_its_own(tmp_path):
    finetuned = {"pretrained": True, "model": "se_resnet20_cifar.cifar10", "seattn": {"dataset": "birds"}}
    write_run(tmp_path / "run", ("jay", "rook", "wren"), finetuned)
    folder = tmp_path / "stage"
    assert run(["hub", "stage", str(tmp_path / "run"), str(folder), "--name", "my_birds"]) == 0
    assert run(["hub", "verify", str(folder)]) == 0
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    assert tuple(model.pretrained_cfg["label_names"]) == ("jay", "rook", "wren")
    card = (folder / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["model-index"][0]["name"] == "my_birds"
    assert front["base_model"] == "seattn/se_resnet20_cifar.cifar10"
    assert "license" not in front
    assert "Trained by a user of seattn" in card
    assert "hf-hub:ORG/my_birds" in card
    assert "tag" not in json.loads((folder / "config.json").read_text())["pretrained_cfg"]


@pytest.mark.parametrize("source", ["stage", "run"])
def test_transformers_gives_the_same_logits_and_labels(shipped, tmp_path, source):
    transformers = pytest.importorskip("transformers")
    folder = shipped
    if source == "run":
        folder = write_run(tmp_path / "run", ("jay", "rook", "wren"), {"model_kwargs": {"rd_ratio": 0.5}})
    ours = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    theirs = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(theirs(x).logits, ours(x))
    assert tuple(theirs.config.id2label.values()) == tuple(ours.pretrained_cfg["label_names"])

    image = Image.fromarray(load_sample("cifar10").images[0]).resize((50, 40))
    found = transformers.pipeline("image-classification", model=str(folder))(image, top_k=1)[0]
    with torch.inference_mode():
        probability, index = ours(eval_transform(ours)(image)[None]).softmax(1)[0].max(0)
    assert found["label"] == ours.pretrained_cfg["label_names"][int(index)]
    assert found["score"] == pytest.approx(float(probability), rel=1e-5)


@pytest.mark.parametrize(
    ("is_stage", "file", "message"),
    [
        (False, "notes.txt", "is not empty and is not an earlier stage"),
        (True, "README.md", "was changed after staging, so it is not replaced"),
        (True, "notes.txt", "notes.txt is not listed in SHA256SUMS"),
    ],
)
def test_a_folder_with_anything_of_the_users_is_left_alone(shipped, tmp_path, fails, is_stage, file, message):
    folder = tmp_path / "stage"
    if is_stage:
        shutil.copytree(shipped, folder)
    folder.mkdir(exist_ok=True)
    (folder / file).write_text("my own words")
    before = read(folder)
    assert message in fails("hub", "stage", NAME, folder)
    assert read(folder) == before
    assert list(tmp_path.iterdir()) == [folder]


def test_another_models_stage_is_left_alone(folder, fails):
    assert "holds my_birds, not se_resnet20_cifar.cifar10" in fails("hub", "stage", NAME, folder)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("I/O error: No space left")])
def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, error):
    def full(*_, **__):
        raise error

    monkeypatch.setattr("seattn.hub.golden.save_file", full)
    with pytest.raises(UserError, match=r"^cannot write [^\n]*/stage: [^\n]*No space left"):
        stage(NAME, tmp_path / "stage")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_may_not_be_read_is_one_line(tmp_path, monkeypatch, fails):
    def forbidden(path):
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "stage").mkdir()
    monkeypatch.setattr("pathlib.Path.iterdir", forbidden)
    assert f"cannot read {tmp_path}/stage: Permission denied" in fails("hub", "stage", NAME, tmp_path / "stage")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["se_resnet20_cifr", "new"], "unknown model 'se_resnet20_cifr'; did you mean se_resnet20_cifar"),
        (
            ["se_resnet56_cifar.cifar100", "new"],
            "has no weights in this package; the models with weights are cbam_resnet20_cifar.cifar10, eca_",
        ),
        (["resnet18", "new"], "has no weights in this package"),
        ([NAME, "file"], "is a file; give a folder"),
        ([NAME, "file/new"], "cannot write file/new"),
        ([NAME, "new", "--name", "x"], "--name is for the weights of a run"),
        (["run", "new"], "give --name"),
        (["run", "new", "--name", "a/b"], "cannot be the name of a repository"),
        (["run", "new", "--name", "a..b"], "cannot be the name of a repository"),
        (["run", "new", "--name", "resnet50.birds"], "so its weights cannot be named resnet50.birds"),
        (["empty", "new", "--name", "x"], "holds no finished run"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_staged_is_one_line(tmp_path, monkeypatch, fails, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    write_run(tmp_path / "run", ("jay", "rook"))
    assert message in fails("hub", "stage", *arguments)
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".*"))
