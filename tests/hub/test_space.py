"""A staged Space is whole: the app finds its net and examples, and the Hub's front matter and the bounds are right."""

import importlib.metadata
import json
import runpy
import shutil
import sys

import numpy as np
import pytest
from huggingface_hub import RepoCard
from packaging.requirements import Requirement
from PIL import Image
from safetensors.torch import load_file

import seattn.hub.space as space_module
from seattn.cli.main import run
from seattn.core.errors import UserError
from seattn.hub.space import requirements, stage_space
from seattn.hub.sums import check_sums
from seattn.models import models_with_weights
from seattn.models.load import load_model
from tests.helpers.hub.user import BIRDS, NAME, REPO, read
from tests.helpers.runs import write_run

pytest.importorskip("gradio", reason="gradio is in the extra `app`")


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    """The Space of weights of the package. Tests that change it copy it."""
    folder = tmp_path_factory.mktemp("spaces") / "packaged"
    stage_space(NAME, folder)
    return folder


@pytest.fixture
def birds(tmp_path):
    return write_run(tmp_path / "my_birds", BIRDS)


@pytest.fixture
def started(monkeypatch):
    """A function: what app.py of a folder asks the app to serve."""
    import seattn.deploy.app.server

    calls = []
    monkeypatch.setattr(seattn.deploy.app.server, "run", lambda models, **options: calls.append((models, options)))

    def start(folder):
        runpy.run_path(str(folder / "app.py"), run_name="__main__")
        return calls.pop()

    return start


def test_the_folder_is_whole_and_the_same_each_time(space, tmp_path):
    files = stage_space(NAME, tmp_path / "again")
    assert read(tmp_path / "again") == read(space)
    assert {str(file) for file in files} == set(read(space))
    assert check_sums(space) == len(files) - 1
    for content in read(space).values():
        assert str(space.parent).encode() not in content
        assert b"/site-packages" not in content


def test_the_front_matter_is_what_the_hub_asks_for(space):
    data = RepoCard.load(space / "README.md").data
    assert (data["title"], data["sdk"], data["app_file"], data["license"]) == (NAME, "gradio", "app.py", "apache-2.0")
    assert data["sdk_version"] == importlib.metadata.version("gradio")
    assert data["python_version"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert data["emoji"]
    colors = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {data["colorFrom"], data["colorTo"]} <= colors
    assert len(data["short_description"]) <= 60
    assert "models" not in data


def test_the_requirements_are_bounded_and_met_here():
    rows = [Requirement(line) for line in requirements().splitlines()]
    assert [row.name for row in rows] == ["seattn", "torch", "torchvision", "timm", "gradio", "grad-cam"]
    assert (rows[0].extras, str(rows[0].specifier)) == ({"app", "explain"}, f"=={importlib.metadata.version('seattn')}")
    for row in rows:
        assert row.specifier.contains(importlib.metadata.version(row.name), prereleases=True)
        assert row is rows[0] or sorted(part.operator for part in row.specifier) == ["<", ">="]


def test_packaged_weights_are_named_first_beside_the_others(space, started):
    models, options = started(space)
    assert list(models) == [NAME, *(name for name in models_with_weights() if name != NAME)]
    assert models[NAME] == NAME
    assert options["title"] == NAME
    assert [path.name for path in options["examples"]] == sorted(path.name for path in (space / "examples").iterdir())
    assert set(options["example_classes"]) < set(load_model(NAME).pretrained_cfg["label_names"])
    assert not (space / "model").exists()


def test_the_weights_of_a_run_travel_and_its_temperature_too(birds, tmp_path, started):
    config = json.loads((birds / "config.json").read_text())
    (birds / "config.json").write_text(json.dumps({**config, "temperature": 1.5}))
    stage_space(str(birds), tmp_path / "space")
    shutil.move(tmp_path / "space", tmp_path / "elsewhere")
    models, options = started(tmp_path / "elsewhere")
    assert models == {"my_birds": str(tmp_path / "elsewhere" / "model")}
    assert options == {"examples": [], "title": "my_birds"}
    here = load_file(tmp_path / "elsewhere" / "model" / "model.safetensors")
    assert all((here[key] == value).all() for key, value in load_file(birds / "model.safetensors").items())
    assert load_model(models["my_birds"]).seattn_temperature == 1.5
    readme = (tmp_path / "elsewhere" / "README.md").read_text()
    assert "a net `se_resnet20_cifar` of 3 classes" in readme
    assert "CIFAR-10" not in readme
    assert "license" not in RepoCard.load(tmp_path / "elsewhere" / "README.md").data


def test_local_dir_a_name_a_licence_and_examples(birds, tmp_path, started):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    exif = Image.Exif()
    exif[0x010F] = "the maker of a camera"
    noise = np.random.default_rng(0).integers(0, 256, (1200, 2400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(pictures / "a jay, outside.jpg", exif=exif)
    folder = tmp_path / "space"
    options = ["--name", "garden", "--license", "cc-by-4.0", "--examples", str(pictures)]
    assert run(["hub", "space", f"local-dir:{birds}", str(folder), *options]) == 0
    models, options = started(folder)
    assert models == {"garden": str(folder / "model")}
    (example,) = options["examples"]
    assert example.name == "01-a-jay-outside.jpg"
    with Image.open(example) as image:
        assert image.size == (1024, 512)
        assert not image.getexif()
    assert "example_classes" not in options
    assert RepoCard.load(folder / "README.md").data["license"] == "cc-by-4.0"


def test_a_repository_of_the_hub_is_loaded_by_name(on_hub, tmp_path, started):
    stage_space(f"hf-hub:{REPO}", tmp_path / "space")
    models, _ = started(tmp_path / "space")
    assert models == {"my_birds": f"hf-hub:{REPO}"}
    assert RepoCard.load(tmp_path / "space" / "README.md").data["models"] == [REPO]
    assert not (tmp_path / "space" / "model").exists()


def test_the_command_prints_the_files_and_what_to_do_next(birds, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "space"
    assert run(["hub", "space", str(birds), str(folder)]) == 0
    out, err = capsys.readouterr()
    *files, attempt, publication = out.splitlines()
    assert set(files) == {str(folder / name) for name in read(folder)}
    assert attempt == f"try it: python {folder}/app.py"
    assert publication == f"publish it: hf upload --repo-type space USER/NAME {folder}"
    assert "names a development version of seattn" in err
    monkeypatch.setattr(space_module, "is_released", lambda: True)
    assert run(["hub", "space", str(birds), str(folder)]) == 0
    assert "development" not in capsys.readouterr().err


def test_only_an_unchanged_stage_of_the_same_space_is_replaced(birds, space, tmp_path, fails):
    folder = tmp_path / "space"
    shutil.copytree(space, folder)
    assert run(["hub", "space", NAME, str(folder)]) == 0
    assert f"holds {NAME}, not my_birds" in fails("hub", "space", birds, folder)
    (folder / "app.py").write_text("changed")
    assert "was changed after staging, so it is not replaced" in fails("hub", "space", NAME, folder)
    assert (folder / "app.py").read_text() == "changed"
    assert "is not empty and is not an earlier stage" in fails("hub", "space", NAME, birds)
    assert (birds / "model.safetensors").is_file()
    (tmp_path / "file").touch()
    assert "is a file; give a folder" in fails("hub", "space", NAME, tmp_path / "file")
    repository = tmp_path / "repository"
    assert run(["hub", "stage", NAME, str(repository)]) == 0
    assert "is not empty and is not an earlier stage" in fails("hub", "space", NAME, repository)
    assert "is not empty and is not an earlier stage" in fails("hub", "stage", NAME, space)


def test_bad_input_is_one_line_and_leaves_nothing(birds, tmp_path, fails):
    out = tmp_path / "new" / "space"
    assert "unknown model 'se_resnet21_cifar'; did you mean" in fails("hub", "space", "se_resnet21_cifar", out)
    assert "se_resnet50 has no weights in this package" in fails("hub", "space", "se_resnet50", out)
    assert "has no tag 'x'" in fails("hub", "space", "se_resnet20_cifar.x", out)
    assert "no such model or directory" in fails("hub", "space", "runs/none", out)
    assert "is not a licence of the Hub" in fails("hub", "space", NAME, out, "--license", "My License")
    assert "cannot be the name of a repository" in fails("hub", "space", birds, out, "--name", "a b")
    assert "cannot list the folder" in fails("hub", "space", birds, out, "--examples", tmp_path / "none")
    (birds / "model.safetensors").write_bytes(b"broken")
    fails("hub", "space", birds, out)
    assert not out.parent.exists()
    assert not list(tmp_path.rglob("*.part"))


def test_without_gradio_its_version_is_unknown(tmp_path, monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(space_module, "version", missing)
    with pytest.raises(UserError, match=r"a Space names the version of gradio, .* pip install \"seattn\[app\]\""):
        stage_space(NAME, tmp_path / "space")
    assert not (tmp_path / "space").exists()
