"""What `seattn hub verify` holds: every way in which a folder can be damaged, wrong or hostile ends in one line."""

import json
import os
import shutil
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file, save_file

from seattn.cli.main import run
from seattn.evaluation.scoring import evaluate, wilson_interval
from seattn.hub import verification
from seattn.hub.staging import stage
from seattn.hub.sums import render_sums
from seattn.hub.verification import verify
from seattn.models.load import load_model
from tests.helpers.colours import write_colours
from tests.helpers.hub.user import BIRDS, flipped, read, with_config
from tests.helpers.runs import write_run


def resum(folder):
    """What somebody does who means harm: checksums fit."""
    (folder / "SHA256SUMS").write_text(render_sums(folder))


def test_a_whole_folder_passes_and_says_what_was_held(folder, capsys):
    assert run(["hub", "verify", str(folder)]) == 0
    out = capsys.readouterr().out
    for check in ("checksums", "config.json", "weights", "golden outputs", "card"):
        assert check in out
    assert "0.0001 is allowed" in " ".join(out.split())
    assert verify(folder).checks[0][0] == "checksums"


def test_weights_of_the_package_are_verified_by_name(capsys):
    assert run(["hub", "verify", "se_resnet20_cifar"]) == 0
    assert "claims 92.64%" in capsys.readouterr().out


def test_what_the_hub_adds_is_passed_over(folder):
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs")
    (folder / ".cache" / "huggingface").mkdir(parents=True)
    (folder / ".cache" / "huggingface" / "x.lock").write_text("")
    verify(folder)


def test_a_download_of_links_passes(folder, tmp_path):
    """As the Hub's cache is laid out."""
    blobs = folder.rename(tmp_path / "blobs")
    (folder / "test").mkdir(parents=True)
    for path in blobs.rglob("*"):
        if path.is_file():
            (folder / path.relative_to(blobs)).symlink_to(path)
    verify(folder)


def test_a_folder_called_as_a_net_is_what_is_checked(folder, tmp_path, monkeypatch, fails):
    monkeypatch.chdir(tmp_path)
    folder.rename("se_resnet20_cifar")
    assert run(["hub", "verify", "se_resnet20_cifar"]) == 0
    (tmp_path / "se_resnet20_cifar" / "README.md").unlink()
    assert "README.md is missing" in fails("hub", "verify", "se_resnet20_cifar")


def flip(path, at=-5):
    path.write_bytes(flipped(path.read_bytes(), at))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: flip(f / "model.safetensors"), "model.safetensors is damaged or was changed: its SHA-256"),
        (lambda f: flip(f / "test" / "golden.safetensors", 90), "golden.safetensors is damaged or was changed"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), "model.safetensors is damaged or was changed"),
        (lambda f: (f / "config.json").unlink(), "config.json is missing; get the folder from its source again"),
        (lambda f: (f / "pytorch_model.bin").write_bytes(b"x"), "pytorch_model.bin is not listed in SHA256SUMS"),
        (lambda f: (f / "test" / "more").write_bytes(b"x"), "test/more is not listed in SHA256SUMS"),
        (lambda f: (f / "SHA256SUMS").unlink(), "cannot read"),
        (lambda f: (f / "SHA256SUMS").write_bytes(b"\xff\xfe"), "is not text in UTF-8"),
        (lambda f: (f / "SHA256SUMS").write_text("no sum\n"), "SHA256SUMS, line 1, is not a digest"),
        (lambda f: (f / "SHA256SUMS").write_text(""), "is not listed in SHA256SUMS"),
        (lambda f: (f / "SHA256SUMS").write_text(f"{'0' * 64}  ../../etc/passwd\n"), "a file of the folder"),
        (lambda f: (f / "SHA256SUMS").write_text(f"{'0' * 64}  /etc/passwd\n"), "a file of the folder"),
        (lambda f: os.mkfifo(f / "pipe"), "pipe is not listed in SHA256SUMS"),
        (lambda f: shutil.rmtree(f), "no such folder"),
    ],
)
def test_what_is_not_as_it_was_staged_is_named(folder, fails, harm, message):
    harm(folder)
    assert message in fails("hub", "verify", folder)


def test_a_pipe_in_place_of_a_file_is_not_read(folder, fails):
    (folder / "README.md").unlink()
    os.mkfifo(folder / "README.md")
    assert "README.md is not a plain file" in fails("hub", "verify", folder)


def config(**changes):
    """Other values in config.json; `a__b` is b in a."""

    def harm(folder):
        (folder / "config.json").write_bytes(with_config(read(folder), **changes)["config.json"])

    return harm


def text(name, content):
    return lambda folder: (folder / name).write_text(content)


LONG = "A" * 100_000


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (config(author="me"), 'unknown key "author"; known: architecture'),
        (config(pretrained_cfg__typo=1), 'unknown key "pretrained_cfg.typo"'),
        (config(pretrained_cfg__file="../../weights.bin"), 'unknown key "pretrained_cfg.file"'),
        (config(pretrained_cfg__url="http://x/w.pth"), 'unknown key "pretrained_cfg.url"'),
        (config(pretrained_cfg__hf_hub_id="x/y"), 'unknown key "pretrained_cfg.hf_hub_id"'),
        (config(pretrained_cfg__custom_load=True), "custom_load"),
        (config(architecture="../../se_resnet20_cifar"), 'architecture "../../se_resnet20_cifar" is not a net'),
        (config(architecture="hf-hub:x/y"), 'architecture "hf-hub:x/y" is not a net'),
        (config(architecture=["resnet18"]), "architecture must be text, got ['resnet18']"),
        (config(architecture="resnet20_cifar"), "model.safetensors: the net has no layer1.0.se"),
        (config(architecture="resnet18"), "num_classes 3 and num_features 64; resnet18 with these"),
        (config(architecture=None), "architecture must be text, got None"),
        (config(num_classes=10**12), "num_classes must be at most 100000, got 1000000000000"),
        (config(num_classes=True), "num_classes must be a whole number, got True"),
        (config(num_classes=0), "num_classes must be at least 1, it is 0"),
        (config(num_classes=4), "3 different label_names for num_classes 4"),
        (config(label_names=["a", "b", "a"]), "2 different label_names"),
        (config(label_names=["a", "b", "c\nd"]), "each on one line"),
        (config(label_names={"0": "a"}), "label_names must be a list"),
        (config(pretrained_cfg__label_names=["x", "y", "z"]), "pretrained_cfg.label_names differ from label_names"),
        (config(num_features=65), "num_features 65; se_resnet20_cifar with these model_args has 3 and 64"),
        (config(model_args__num_classes=5), "model_args.num_classes is 5"),
        (config(model_args__checkpoint_path="../../x.pth"), "model_args.checkpoint_path is not a property of a net"),
        (config(model_args__pretrained=True), "model_args.pretrained is not a property"),
        (config(model_args__typo=1), "does not describe a net that can be built"),
        (config(model_args__rd_ratio=1e300), "model_args has a number above 10,000"),
        (config(model_args__attn_stages=[1, [10**9]]), "model_args has a number above 10,000"),
        (config(model_args__rd_ratio="much"), "does not describe a net that can be built"),
        (config(model_args__rd_ratio=4), "layer1.0.se"),
        (config(model_args=[1]), "model_args must be a mapping of keys to values, got [1]"),
        (
            config(pretrained_cfg__input_size=[3, 10**9, 10**9]),
            "input_size.1 must be at most 4096",
        ),
        (config(pretrained_cfg__input_size=[3, 64, 64]), "the input is torch.float32 of (4, 3, 32, 32)"),
        (config(pretrained_cfg__mean=["x"]), "pretrained_cfg.mean.0 must be a number, got 'x'"),
        (config(pretrained_cfg__mean=[]), "pretrained_cfg has no mean"),
        (config(pretrained_cfg__interpolation=LONG), "does not describe a net that can be built"),
        (config(pretrained_cfg__architecture="resnet18"), 'unknown key "pretrained_cfg.architecture"'),
        (config(**{LONG: 1}), "unknown key"),
        (text("config.json", "{"), "is not valid JSON"),
        (text("config.json", "[" * 100_000), "is not valid JSON"),
        (text("config.json", "[]"), "must hold a JSON object"),
        (text("config.json", " " * 20_000_000 + "{}"), "20,000,002 bytes, more than the 16,777,216"),
    ],
)
def test_a_config_that_is_wrong_or_hostile_is_one_line(folder, fails, harm, message):
    harm(folder)
    resum(folder)
    line = fails("hub", "verify", folder)
    assert message in line
    assert len(line) < 1000


def tensors(path, change):
    state = load_file(path)
    change(state)
    save_file(state, path)


def weights(change):
    return lambda folder: tensors(folder / "model.safetensors", change)


def golden(change):
    return lambda folder: tensors(folder / "test" / "golden.safetensors", change)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (weights(lambda s: s.pop("fc.bias")), "the net needs fc.bias"),
        (weights(lambda s: s.update(more=torch.ones(1))), "the net has no more"),
        (
            weights(lambda s: s.update({"fc.weight": s["fc.weight"][:2].clone()})),
            "fc.weight is (2, 64), the net needs (3",
        ),
        (weights(lambda s: s.update({"fc.weight": s["fc.weight"].double()})), "fc.weight is torch.float64; it must be"),
        (weights(lambda s: s.update({"bn1.num_batches_tracked": torch.ones(())})), "it must be torch.int64"),
        (weights(lambda s: s["fc.weight"].fill_(float("nan"))), "fc.weight has NaN or infinite values"),
        (weights(lambda s: s["fc.bias"].fill_(float("inf"))), "fc.bias has NaN or infinite values"),
        (weights(lambda s: s["conv1.weight"].add_(0.1)), "is allowed; either these are other weights"),
        (text("model.safetensors", "no tensors"), "is not a whole safetensors file"),
        (golden(lambda s: s["logits"].add_(1e-2)), "logits differ by"),
        (golden(lambda s: s["features"].mul_(1.01)), "features differ by"),
        (golden(lambda s: s["logits"].fill_(float("nan"))), "logits differ by nan"),
        (golden(lambda s: s.pop("features")), "does not hold input, features and logits"),
        (golden(lambda s: s.update(input=s["input"].half())), "the input is torch.float16"),
        (golden(lambda s: s.update(logits=s["logits"][:, :2].clone())), "logits is (4, 2), the model gives (4, 3)"),
    ],
)
def test_weights_that_are_other_ones_are_named(folder, fails, harm, message):
    harm(folder)
    resum(folder)
    assert message in fails("hub", "verify", folder)


def results(**changes):
    def harm(folder):
        path = folder / "results.json"
        content = json.loads(path.read_text())
        content["row"].update(changes)
        path.write_text(json.dumps(content))

    return harm


def prose(old, new):
    def harm(folder):
        card = (folder / "README.md").read_text()
        assert old in card
        (folder / "README.md").write_text(card.replace(old, new))

    return harm


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (
            results(top1=0.51, top1_low=0.4412, top1_high=0.5784),
            "README.md claims 50.00% for 'my_birds', results.json 51.00%",
        ),
        (results(top1_low=0.1), "the 95 % interval of 50.00% of 200 images is 43.14% to 56.86%, not 10.00% to"),
        (results(dataset="\x1b[31mbirds"), "a name or data set must be one line"),
        (results(n=0), "n must be at least 1, got 0"),
        (results(top1=float("nan")), "at most 1, got nan"),
        (prose("| 50.00 % |", "| 98.00 % |"), "the front matter says 50.00%, but the table below does not"),
        (results(top1="high"), "row.top1 must be a number, got 'high'"),
        (results(more=1), "unknown key 'row.more'"),
        (text("results.json", "{}"), "results.json"),
        (text("README.md", "---\nmodel-index: []\n---\n"), "has no top-1"),
        (text("README.md", "no front matter"), "has no top-1"),
        (text("README.md", "---\na: !!python/object/apply:os.mkdir [pwned]\n---\n"), "has no top-1"),
        (text("README.md", "---\n- 1\n---\n"), "has no top-1"),
        (text("recipe.yaml", "model: [1"), "is not valid YAML"),
        (text("recipe.yaml", "modle: x"), "unknown key 'modle'"),
    ],
)
def test_a_card_that_claims_something_else_is_refused(folder, fails, harm, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    harm(folder)
    resum(folder)
    assert message in fails("hub", "verify", folder)
    assert not (tmp_path / "pwned").exists()


@pytest.fixture
def claimed(tmp_path):
    """A stage whose card claims what its weights score on `tmp_path`/data."""
    data = write_colours(
        tmp_path / "data", {"jay": 0, "rook": 1, "wren": 2}, {"test": [20, 20, 20], "train": [1, 1, 1]}
    )
    write_run(tmp_path / "run", BIRDS)
    found = evaluate(load_model(str(tmp_path / "run")), data / "test", workers=0)
    row = {key: value for key, value in asdict(found).items() if key in ("n", "top1", "top1_low", "top1_high")}
    write_run_row(tmp_path / "run", row)
    stage("my_birds", tmp_path / "stage", run=tmp_path / "run")
    return tmp_path


def write_run_row(folder, changes):
    path = folder / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_accuracy_is_held_to_the_claim(claimed, capsys):
    assert run(["hub", "verify", str(claimed / "stage"), "--data-dir", str(claimed / "data")]) == 0
    out = " ".join(capsys.readouterr().out.split()).replace(" │ │ │ ", " ")
    assert "a difference of 0 images, inside the interval" in out


def test_the_accuracy_is_of_images_that_are_read_as_the_recipe_says(claimed, monkeypatch):
    recipe = claimed / "run" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("exif: true", "exif: false"))
    stage("my_birds", claimed / "other", run=claimed / "run")
    asked = []

    def recorded(*args, **options):
        asked.append(options)
        return evaluate(*args, workers=0, **options)

    monkeypatch.setattr(verification, "evaluate", recorded)
    verify(claimed / "other", data_dir=claimed / "data")
    assert asked == [{"exif": False}]


def test_an_accuracy_outside_of_the_interval_is_refused(claimed, fails):
    low, high = wilson_interval(59, 60)
    write_run_row(claimed / "run", {"top1": 59 / 60, "top1_low": low, "top1_high": high})
    stage("my_birds", claimed / "other", run=claimed / "run")
    line = fails("hub", "verify", claimed / "other", "--data-dir", claimed / "data")
    assert "to 99.71%: are these the images of birds?" in line


def test_another_number_of_images_is_refused(claimed, fails):
    next((claimed / "data" / "test" / "jay").iterdir()).unlink()
    line = fails("hub", "verify", claimed / "stage", "--data-dir", claimed / "data")
    assert "has 59 test images, the card 60; give the whole test split" in line


def test_a_claim_of_held_out_images_cannot_be_checked(claimed, fails):
    write_run_row(claimed / "run", {"split": "held-out"})
    stage("held_out", claimed / "other", run=claimed / "run")
    line = fails("hub", "verify", claimed / "other", "--data-dir", claimed / "data")
    assert "the card's score is of the held-out part" in line
    assert "to make choices: the score is a little too high" in (claimed / "other" / "README.md").read_text()


@pytest.mark.parametrize("arguments", [["hub", "verify", "./no/such"], ["hub", "verify", "se_resnet20_cifr"]])
def test_what_is_neither_folder_nor_name_is_one_line(fails, arguments):
    line = fails(*arguments)
    assert "no such folder: no/such" in line or "did you mean se_resnet20_cifar" in line


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(sha256="0" * 64), "the results of each class belong to another model.safetensors"),
        (lambda c: c["confusion"][0].__setitem__(0, 0), "by the classes 8,328 of 9,064 images are correct"),
        (lambda c: c["confusion"].pop(), "must be 10 x 10, one row for each class"),
        (lambda c: c.update(typo=1), "unknown key 'classes.typo'; known: name, seed"),
    ],
)
def test_results_of_classes_that_are_not_of_the_weights_are_refused(shipped, tmp_path, fails, change, message):
    folder = shutil.copytree(shipped, tmp_path / "stage")
    content = json.loads((folder / "results.json").read_text())
    change(content["classes"])
    (folder / "results.json").write_text(json.dumps(content))
    resum(folder)
    assert message in fails("hub", "verify", folder)


NETS = {
    "grey": {"model": "se_resnet20_cifar", "model_kwargs": {"in_chans": 1, "rd_ratio": 0.5}},
    "timm": {"model": "test_resnet"},
    "tokens": {"model": "test_vit"},
}


@pytest.mark.parametrize("net", NETS)
def test_runs_of_any_net_are_staged_and_pass(tmp_path, net):
    write_run(tmp_path / "run", ("one|two", "<b>", "drei"), NETS[net])
    stage(net, tmp_path / "stage", run=tmp_path / "run")
    verify(tmp_path / "stage")
    card = (tmp_path / "stage" / "README.md").read_text()
    assert ("import seattn" in card) == (net == "grey")
    assert ("squeeze-and-excitation" in card.split("---")[1]) == (net == "grey")
