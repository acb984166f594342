"""Every way to name a model and its weights; every way in which they can be broken ends in one line that says which."""

import argparse
import json
import os
import zipfile

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models._hub import save_for_hf

import seattn  # noqa: F401  # registers the models
from seattn.core.errors import UserError
from seattn.models.checkpoints.folder import save_net
from seattn.models.checkpoints.read import read_state_dict
from seattn.models.listing import our_models
from seattn.models.load import load_model
from tests.helpers.colours import write_colours

ARCH = "se_resnet20_cifar"


@pytest.fixture(scope="module")
def trained():
    """A net whose weights are not those of a fresh one."""
    torch.manual_seed(1)
    net = timm.create_model(ARCH)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return net.eval()


@pytest.fixture
def run_dir(trained, tmp_path):
    folder = tmp_path / "run"
    save_for_hf(trained, folder, safe_serialization=True)
    return folder


def assert_same_weights(model, expected):
    found = model.state_dict()
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


def edit_config(run_dir, **changes):
    path = run_dir / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_directory_loads_bit_for_bit_in_eval_mode(run_dir, trained):
    model = load_model(str(run_dir))
    assert not model.training
    assert_same_weights(model, trained.state_dict())
    assert tuple(model.pretrained_cfg["label_names"]) == trained.pretrained_cfg["label_names"]
    assert_same_weights(load_model(f"local-dir:{run_dir}"), trained.state_dict())


def test_a_directory_with_other_classes_keeps_its_classifier(tmp_path):
    torch.manual_seed(2)
    net = timm.create_model(ARCH, num_classes=3)
    save_for_hf(net, tmp_path, model_config={"label_names": ["x", "y", "z"]}, safe_serialization=True)
    model = load_model(str(tmp_path))
    assert_same_weights(model, net.state_dict())
    assert tuple(model.pretrained_cfg["label_names"]) == ("x", "y", "z")


def test_without_pretrained_the_weights_are_random(run_dir, trained):
    found = load_model(str(run_dir), pretrained=False).state_dict()
    assert not torch.equal(found["conv1.weight"], trained.state_dict()["conv1.weight"])
    assert load_model(f"{ARCH}.cifar100", pretrained=False).num_classes == 100


@pytest.mark.parametrize("spec", [ARCH, "directory"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth.tar"])
def test_a_checkpoint_replaces_the_models_weights(run_dir, tmp_path, spec, suffix):
    expected = timm.create_model(ARCH).state_dict()
    path = tmp_path / f"mine{suffix}"
    if suffix == ".safetensors":
        save_file(expected, path)
    else:
        torch.save({"state_dict": expected, "args": argparse.Namespace(lr=0.1), "epoch": 3}, path)
    assert_same_weights(load_model(str(run_dir) if spec == "directory" else spec, checkpoint=path), expected)


def test_averaged_weights_are_preferred_and_wrappers_prefixes_removed(tmp_path):
    plain, averaged = ({"w": torch.full((2,), value)} for value in (1.0, 2.0))
    path = tmp_path / "last.pth.tar"
    torch.save({"state_dict": plain, "state_dict_ema": {f"module.{k}": v for k, v in averaged.items()}}, path)
    found = read_state_dict(path)
    assert found.keys() == {"w"}
    assert torch.equal(found["w"], averaged["w"])
    torch.save({"state_dict": plain, "state_dict_ema": None}, path)
    assert torch.equal(read_state_dict(path)["w"], plain["w"])
    torch.save(plain, path)
    assert torch.equal(read_state_dict(path)["w"], plain["w"])


def test_all_our_models_are_listed_and_no_other():
    names = our_models()
    assert ARCH in names
    assert "resnet18" not in names
    assert {"resnet50", "seresnet50", "wide_resnet50_2"}.isdisjoint(names)
    assert all("cifar" in name or name.startswith(("se_", "eca_", "cbam_")) for name in names)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("se_resnet20_cifr", "unknown model 'se_resnet20_cifr'; did you mean se_resnet20_cifar"),
        ("se_resnet20_cifr.cifar10", "did you mean se_resnet20_cifar"),
        ("efficientnet_b00", "did you mean efficientnet_b0"),
        ("zzzzzzzz", "`seattn list` shows ours"),
        (f"{ARCH}.imagenet", "se_resnet20_cifar has no tag 'imagenet'; tags: se_resnet20_cifar.cifar10"),
        ("no/such/folder", "no such model or directory: no/such/folder"),
        ("hf-hub:not a repo", "'not a repo' is not the name of a repository, ORG/NAME: Repo id must"),
        ("hf-hub:a@b@c", "'a@b@c' is not the name of a repository, ORG/NAME or ORG/NAME@REVISION"),
    ],
)
def test_a_name_that_means_nothing_is_refused(spec, message):
    with pytest.raises(UserError) as error:
        load_model(spec)
    assert message in str(error.value)


def test_no_network_is_said(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"nobody/nothing is not complete in the cache .* HF_HUB_OFFLINE forbids"):
        load_model("hf-hub:nobody/nothing")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_directory_without_its_files_says_which(run_dir, name):
    (run_dir / name).unlink()
    with pytest.raises(UserError, match=f"run has no {name}; a model directory holds"):
        load_model(str(run_dir))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "must hold a JSON object"),
        ("{}", "the key 'architecture' is missing"),
        ('{"architecture": "se_resnet20_cifr"}', "unknown model 'se_resnet20_cifr'; did you mean se_resnet20_cifar"),
    ],
    ids=["broken", "list", "empty", "unknown"],
)
def test_a_bad_config_is_named(run_dir, content, message):
    (run_dir / "config.json").write_text(content)
    with pytest.raises(UserError) as error:
        load_model(str(run_dir))
    assert "config.json" in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": -1}, "num_classes must be at least 0, got -1"),
        ({"num_classes": 10**9}, "num_classes must be at most 100000"),
        ({"num_features": 0}, "num_features must be at least 1"),
        ({"label_names": 5}, "label_names must be a list, got 5"),
        ({"label_names": ["a", "b\nc"]}, r"label_names must be names that are each on one line; got 'b\nc'"),
        ({"model_args": {"drop_rate": 1e9}}, "model_args has a number above 10,000"),
        ({"model_args": {"num_classes": 10**9}}, "model_args has a number above 100,000 in num_classes"),
        ({"model_args": {"global_pool": ""}}, 'model_args has global_pool: "", with which'),
        ({"pretrained_cfg": {"input_size": [3, 10**6, 10**6]}}, "pretrained_cfg.input_size.1 must be at most"),
        ({"pretrained_cfg": {"input_size": [3, 32]}}, "pretrained_cfg.input_size must have at least 3 values"),
        ({"pretrained_cfg": {"std": [0.2, 0, 0.2]}}, "pretrained_cfg.std.1 must be greater than 0, got 0"),
        ({"pretrained_cfg": {"mean": [float("nan")] * 3}}, "pretrained_cfg.mean.0 must be a finite number, got nan"),
        ({"pretrained_cfg": {"crop_pct": -1}}, "pretrained_cfg.crop_pct must be greater than 0, got -1"),
        ({"pretrained_cfg": 5}, "pretrained_cfg must be a mapping of keys to values, got 5"),
    ],
    ids=str,
)
@pytest.mark.parametrize("form", ["local-dir:{}", "{}"])
def test_a_config_with_a_value_out_of_bounds_is_refused_by_name(run_dir, form, changes, message):
    edit_config(run_dir, **changes)
    with pytest.raises(UserError) as error:
        load_model(form.format(run_dir))
    assert str(error.value).startswith(f"{run_dir}/config.json: {message}")


@pytest.mark.parametrize("changes", [{"pretrained_cfg": {"typo": 1}}, {"model_args": {"typo": 1}}], ids=str)
def test_a_config_with_a_key_that_nothing_takes_is_refused(run_dir, changes):
    edit_config(run_dir, **changes)
    with pytest.raises(UserError, match=r"config\.json does not describe a model .*typo"):
        load_model(str(run_dir))


def test_weights_that_do_not_fit_the_config_are_refused_not_dropped(run_dir):
    edit_config(run_dir, num_classes=7, model_args={"num_classes": 7})
    with pytest.raises(UserError, match=r"model\.safetensors does not hold weights of se_resnet20_cifar: .*fc\.weight"):
        load_model(str(run_dir))


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_safetensors_are_refused(run_dir, keep):
    path = run_dir / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"model\.safetensors is not a whole safetensors file"):
        load_model(str(run_dir))


def test_a_damaged_header_of_safetensors_is_refused(run_dir):
    path = run_dir / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[:8] = b"\xff" * 8  # the header's length
    path.write_bytes(content)
    with pytest.raises(UserError, match="is not a whole safetensors file"):
        load_model(str(run_dir))


@pytest.mark.parametrize(
    ("other", "key"), [("resnet20_cifar", "missing layer1.0.se"), ("se_resnet32_cifar", "unexpected layer1.3")]
)
def test_a_checkpoint_of_another_architecture_names_keys(tmp_path, other, key):
    path = tmp_path / "other.safetensors"
    save_file(timm.create_model(other).state_dict(), path)
    with pytest.raises(UserError) as error:
        load_model(ARCH, checkpoint=path)
    assert f"{path} does not hold weights of {ARCH}: {key}" in str(error.value)
    assert " more" in str(error.value)


def test_a_checkpoint_of_another_width_names_the_key(run_dir, tmp_path):
    state = load_file(run_dir / "model.safetensors")
    state["conv1.weight"] = state["conv1.weight"][:, :1].clone()
    save_file(state, tmp_path / "grey.safetensors")
    with pytest.raises(UserError, match=r"grey\.safetensors .* size mismatch for conv1\.weight$"):
        load_model(ARCH, checkpoint=tmp_path / "grey.safetensors")


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no such checkpoint: .*gone\.safetensors"):
        load_model(ARCH, checkpoint=tmp_path / "gone.safetensors")


@pytest.mark.parametrize("content", [b"", b"\x80\x02garbage", b"PK\x03\x04 no zip"], ids=["empty", "pickle", "zip"])
def test_a_damaged_checkpoint_is_named(tmp_path, content):
    path = tmp_path / "bad.pth.tar"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"bad\.pth\.tar") as error:
        load_model(ARCH, checkpoint=path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["bomb.pth", "bomb.pt", "bomb.pth.tar", "bomb.bin"])
def test_a_small_file_that_unpacks_to_much_is_refused_before_it_is_read(tmp_path, name, monkeypatch):
    path = tmp_path / name
    torch.save({"fc.weight": torch.zeros(2**21)}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for member in plain.namelist():
            packed.writestr(member, plain.read(member))
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(UserError, match=rf"{name} has [\d,]+ bytes and would unpack to 8,38"):
        load_model(ARCH, checkpoint=path)


@pytest.mark.parametrize(("make", "kind"), [(os.mkfifo, "device or a pipe"), (os.mkdir, "folder")], ids=str)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_checkpoint_that_is_no_file_is_not_read(tmp_path, make, kind, suffix):
    path = tmp_path / f"weights.{suffix}"
    make(path)
    with pytest.raises(UserError, match=f"weights.{suffix} is a {kind}, not a checkpoint"):
        load_model(ARCH, checkpoint=path)


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {"w": "text"}}, {"epoch": 3}], ids=str)
def test_a_checkpoint_without_weights_is_named(tmp_path, content):
    path = tmp_path / "none.pth.tar"
    torch.save(content, path)
    with pytest.raises(UserError, match=r"none\.pth\.tar holds no weights"):
        load_model(ARCH, checkpoint=path)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta", ""])
def test_a_device_that_is_not_there_is_named(run_dir, device):
    with pytest.raises(UserError, match=f"device '{device}' cannot be used here"):
        load_model(str(run_dir), device=device)


@pytest.mark.parametrize("command", ["predict", "explain", "evaluate", "import"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_one_line_that_names_the_tensor(
    trained, run_dir, tmp_path, fails, command, value
):
    state = {**trained.state_dict(), "layer1.0.bn1.bias": torch.full((16,), value)}
    path = run_dir / "model.safetensors"
    save_file(state, path)
    data = write_colours(tmp_path / "data", {"jay": 0, "rook": 1}, {"test": [1, 1]})
    image = data / "test" / "jay" / "0.png"
    arguments = {
        "predict": ("predict", image, "--model", run_dir),
        "explain": ("explain", run_dir, image, "--out", tmp_path / "out"),
        "evaluate": ("evaluate", run_dir, "--data-dir", data),
        "import": ("import", path, tmp_path / "out", "--model", ARCH),
    }[command]
    assert ": layer1.0.bn1.bias has NaN or infinite values" in fails(*arguments)
    assert not list((tmp_path / "out").glob("*"))


def test_a_folder_leaves_the_number_of_classes_to_its_loader(tmp_path):
    """timm and transformers give `num_classes` themselves; a second one would be an error in transformers."""
    net = timm.create_model(ARCH, num_classes=3, rd_ratio=0.5)
    save_net(net, tmp_path, ["x", "y", "z"])
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_args"]["rd_ratio"] == 0.5
    assert "num_classes" not in config["model_args"]
    assert config["num_classes"] == config["pretrained_cfg"]["num_classes"] == 3
    assert_same_weights(timm.create_model(f"local-dir:{tmp_path}", pretrained=True), net.state_dict())


def test_transformers_load_a_folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    net = timm.create_model(ARCH, num_classes=3, rd_ratio=0.5).eval()
    save_net(net, tmp_path, ["x", "y", "z"])
    again = transformers.AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(again(pixel_values=x).logits, net(x))
