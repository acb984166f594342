"""The command line as its users meet it: what it prints where, its exit codes, and one line for each mistake."""

import csv
import json
import logging
import os
import re
import shlex
import subprocess
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import pytest
import timm
import torch
import typer
from PIL import Image
from safetensors import SafetensorError
from timm.models._hub import save_for_hf

import seattn.cli.demo
import seattn.cli.main
import seattn.experiments.study.ablation
import seattn.training.driver
import seattn.training.finetuning
import seattn.training.pretraining
from seattn.__main__ import main
from seattn.cli.nets import DEFAULT_MODEL
from seattn.core.errors import UserError
from seattn.core.recipe import Recipe, find_config, load_recipe, packaged_configs, parse_recipe, replace_keys

ARCH = "se_resnet20_cifar"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run")
    save_for_hf(timm.create_model(ARCH), folder, safe_serialization=True)
    return str(folder)


@pytest.fixture
def data_dir(tmp_path):
    for name, colour in (("cat", "red"), ("dog", "blue")):
        (tmp_path / "data" / "test" / name).mkdir(parents=True)
        Image.new("RGB", (20, 30), colour).save(tmp_path / "data" / "test" / name / "[bold]0.png")
    return tmp_path / "data"


@pytest.fixture
def image(data_dir):
    return str(data_dir / "test" / "cat" / "[bold]0.png")


def shell(*args, **kwargs):
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, timeout=120, **kwargs)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"seattn {version('seattn')}\n"


def test_an_error_from_a_shell_is_one_line_and_exit_code_2():
    result = shell("-m", "seattn", "predict", "/nowhere.png", "--model", "se_resnet20_cifr")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("seattn: unknown model 'se_resnet20_cifr'; did you mean se_resnet20_cifar")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("package", ["typer", "scipy"])
def test_a_missing_extra_is_one_line(package, monkeypatch, fails, tmp_path):
    for name in [
        name
        for name in sys.modules
        if name in ("seattn.cli.main", "seattn.cli.nets", "seattn.cli.demo", "seattn.evaluation.scoring")
    ]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    expected = 'seattn: the command line needs extra packages: pip install "seattn[cli]"\n'
    assert fails("demo", "--out", tmp_path / "out") == expected


def test_a_missing_module_that_is_no_extra_keeps_its_traceback(monkeypatch):
    monkeypatch.setitem(sys.modules, "seattn.cli.demo", None)
    with pytest.raises(ModuleNotFoundError, match=r"seattn\.cli\.demo"):
        main(["demo"])


def test_a_reader_that_leaves_is_no_error():
    code = "import sys; from seattn.__main__ import main; sys.stdin.read(); sys.exit(main(['list']))"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    child.stdout.close()
    child.stdin.close()
    assert child.stderr.read() == ""
    child.stderr.close()
    assert child.wait(timeout=120) in (1, 141)


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["demo", "--out", "{tmp}"], "interrupted"),
        (
            ["train", f"{ARCH}.cifar10", "--data-dir", "a b"],
            "interrupted; this command resumes the run after its last finished epoch: "
            f"seattn train {ARCH}.cifar10 --data-dir 'a b' --resume",
        ),
        (
            ["finetune", ARCH, "--data-dir", "d", "--resume"],
            "interrupted; this command resumes the run after its last finished epoch: "
            f"seattn finetune {ARCH} --data-dir d --resume",
        ),
        (
            ["pretrain", "resnet20_cifar.cifar10.simclr", "--data-dir", "d"],
            "interrupted; this command resumes the run after its last finished epoch: "
            "seattn pretrain resnet20_cifar.cifar10.simclr --data-dir d --resume",
        ),
        (
            ["ablate", "attention", "--data-dir", "d"],
            "interrupted; the same command resumes it: seattn ablate attention --data-dir d",
        ),
    ],
    ids=["demo", "train", "finetune", "pretrain", "ablate"],
)
def test_an_interruption_ends_with_130_and_says_how_to_resume(monkeypatch, capsys, tmp_path, args, line):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(seattn.cli.demo, "run_demo", interrupted)
    monkeypatch.setattr(seattn.training.driver, "train", interrupted)
    monkeypatch.setattr(seattn.training.finetuning, "finetune", interrupted)
    monkeypatch.setattr(seattn.training.pretraining, "pretrain", interrupted)
    monkeypatch.setattr(seattn.experiments.study.ablation, "ablate", interrupted)
    assert main([arg.format(tmp=tmp_path) for arg in args]) == 130
    assert capsys.readouterr().err.strip() == f"seattn: {line}"


def test_a_message_of_several_lines_is_put_on_one(monkeypatch, fails, tmp_path):
    def refuse(*args, **kwargs):
        raise UserError("first\n  second [red] " + "x" * 200)

    monkeypatch.setattr(seattn.cli.demo, "run_demo", refuse)
    assert fails("demo", "--out", tmp_path) == f"seattn: first second [red] {'x' * 200}\n"


def test_a_bug_keeps_its_traceback(monkeypatch, tmp_path):
    def broken(*args, **kwargs):
        raise RuntimeError("a bug")

    monkeypatch.setattr(seattn.cli.demo, "run_demo", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["demo", "--out", str(tmp_path)])


def test_help_lists_the_commands(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    commands = ("demo", "evaluate", "predict", "list", "profile", "train", "finetune", "report", "explain", "timm")
    assert all(command in text for command in commands)
    assert main([]) == 0
    assert "evaluate" in capsys.readouterr().out
    assert main(["hub"]) == 0
    assert "publish" in capsys.readouterr().out


def commands(group=None, path=()):
    """Every command of the command line: (path, command)."""
    for name, command in (group or typer.main.get_command(seattn.cli.main.app)).commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


@pytest.mark.parametrize(("path", "command"), [pytest.param(*entry, id=" ".join(entry[0])) for entry in commands()])
def test_help_of_a_command_has_defaults_and_an_example_that_parses_and_no_type_behind_flags(
    path, command, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "300")
    assert main([*path, "--help"]) == 0
    text = capsys.readouterr().out
    assert "<bool>" not in text
    for option in command.params:
        line = next((line for line in text.splitlines() if option.opts[0] in line.split()[1:4]), "")
        if option.param_type_name == "option" and not option.is_flag:
            assert "[default: " in line or "[required]" in line, option.name
    example = shlex.split(text.split("Example: ")[1])
    assert example[: len(path) + 1] == ["seattn", *path]
    command.make_context(path[-1], example[len(path) + 1 :])


HEAVY = ("torch", "timm", "numpy", "PIL", "scipy", "huggingface_hub")


@pytest.mark.parametrize(
    ("args", "variables", "expected"),
    [
        (["--help"], {}, "finetune"),
        (["--version"], {}, version("seattn")),
        (["hub", "publish", "--help"], {}, "--dry-run"),
        (["train", "--help"], {}, "--data-dir"),
        (["evaluate", "--nonsense"], {}, ""),
        ([], {"_SEATTN_COMPLETE": "complete_bash", "COMP_WORDS": "seattn pre", "COMP_CWORD": "1"}, "predict"),
    ],
    ids=["help", "version", "help of hub publish", "help of train", "usage error", "completion"],
)
def test_help_completion_and_usage_errors_do_not_wait_for_torch(args, variables, expected):
    code = (
        "import atexit, sys; from seattn.__main__ import main; "
        f"atexit.register(lambda: print('imported:', [name for name in {HEAVY} if name in sys.modules])); "
        "sys.exit(main(sys.argv[1:]))"
    )
    result = shell("-c", code, *args, env={**os.environ, **variables})
    assert expected in result.stdout
    assert result.stdout.endswith("imported: []\n"), result


def test_names_that_are_not_utf_8_are_shown_and_json_stays_json(run_dir, tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.png"
    with open(path, "wb") as file:
        Image.new("RGB", (8, 8)).save(file, "png")
    args = ("-m", "seattn", "predict", path, "--model", run_dir)
    for encoding in ("ascii:strict", "utf-8:strict"):
        result = shell(*args, env={**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "300"})
        assert (result.returncode, result.stderr) == (0, "")
    result = shell(*args, "--json")
    assert json.loads(result.stdout)[0]["image"] == f"{tmp_path}/caf\ufffd.png"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["demo", "--nonsense"], r"No such option:? '?--nonsense"),  # typer up to 0.19 quotes it
        (["evaluate"], "Missing argument 'MODEL"),
        (["evaluate", ARCH], "Missing option '--data-dir'"),
        (["predict"], "Missing argument 'IMAGES"),
        (["predict", "a.png", "--topk", "0"], "Invalid value for '--topk'"),
        (["predict", "a.png", "--unknown-below", "50"], "Invalid value for '--unknown-below'"),
        (["predict", "a.png", "--tta", "rotate"], "Invalid value for '--tta'"),
        (["evaluate", ARCH, "--data-dir", ".", "--batch-size", "many"], "Invalid value for '--batch-size'"),
    ],
)
def test_a_usage_error_is_one_line(fails, args, message):
    assert re.search(message, fails(*args), re.IGNORECASE)


def test_predict_prints_json(run_dir, image, capsys):
    assert main(["predict", image, image, "--model", run_dir, "--topk", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [entry["image"] for entry in found] == [image, image]
    first, second = found[0]["predictions"]
    assert 1 > first["probability"] > second["probability"] > 0
    assert found[1]["predictions"] == found[0]["predictions"]


def test_predict_prints_lines_and_takes_brackets_for_text(run_dir, image, capsys):
    assert main(["predict", image, "--model", run_dir, "--topk", "3"]) == 0
    out = capsys.readouterr().out
    assert image in out
    assert out.count("%") == 3


def test_predict_with_a_checkpoint_uses_its_weights(run_dir, image, capsys, tmp_path):
    torch.manual_seed(5)
    net = timm.create_model(ARCH)
    torch.nn.init.constant_(net.fc.weight, 0)
    torch.nn.init.constant_(net.fc.bias, 0)
    net.fc.bias.data[6] = 9
    torch.save({"state_dict": net.state_dict()}, tmp_path / "frog.pth.tar")
    assert main(["predict", image, "--model", ARCH, "--checkpoint", str(tmp_path / "frog.pth.tar"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["predictions"][0]["label"] == "frog"


@pytest.fixture
def album(tmp_path, image):
    """A folder with three images in two folders, one of them broken, and files that are no images."""
    for name in ("a/1.png", "a/2.jpeg", "b/3.PNG", "b/.hidden.png"):
        (tmp_path / "album" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.open(image).convert("RGB").save(tmp_path / "album" / name)
    (tmp_path / "album" / "a" / "2.jpeg").write_bytes(b"no image")
    (tmp_path / "album" / "notes.txt").write_text("no image by its name")
    return tmp_path / "album"


def test_predict_goes_on_after_images_that_cannot_be_read(run_dir, image, album, capsys):
    assert main(["predict", "nowhere.png", str(album), image, "--model", run_dir, "--batch-size", "2", "--json"]) == 1
    out, err = capsys.readouterr()
    assert [entry["image"] for entry in json.loads(out)] == [f"{album}/a/1.png", f"{album}/b/3.PNG", image]
    missing, broken = err.splitlines()
    assert missing == "seattn: no such image file: nowhere.png"
    assert broken.startswith(f"seattn: cannot read image {album}/a/2.jpeg: ")
    assert main(["predict", "nowhere.png", "--model", run_dir, "--json"]) == 2
    assert json.loads(capsys.readouterr().out) == []


def test_predict_takes_patterns_and_prints_csv(run_dir, album, capsys):
    assert main(["predict", f"{album}/**/*.[pP][nN][gG]", "--model", run_dir, "--topk", "2", "--csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(row["image"], row["rank"]) for row in rows] == [
        (f"{album}/{name}", rank) for name in ("a/1.png", "b/3.PNG") for rank in "12"
    ]
    assert 1 > float(rows[0]["probability"]) > float(rows[1]["probability"]) > 0
    names = timm.create_model(ARCH).pretrained_cfg["label_names"]
    assert [row["label"] for row in rows] == [names[int(row["index"])] for row in rows]


def test_predict_says_unknown_in_every_format(run_dir, image, capsys):
    command = ["predict", image, "--model", run_dir, "--topk", "2", "--tta", "flip", "--unknown-below"]
    for threshold, is_unknown in (("1", True), ("0", False)):
        outputs = []
        for options in ([], ["--json"], ["--csv"]):
            assert main([*command, threshold, *options]) == 0
            outputs.append(capsys.readouterr().out)
        best = json.loads(outputs[1])[0]["predictions"][0]["label"]
        answer = "unknown" if is_unknown else best
        assert ("  unknown: no class reaches a probability of 100.0%\n" in outputs[0]) == is_unknown
        assert json.loads(outputs[1])[0]["answer"] == answer
        assert [row["answer"] for row in csv.DictReader(outputs[2].splitlines())] == [answer, answer]


def test_warnings_of_libraries_are_not_shown(run_dir, image, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1100)  # Pillow warns of larger images, and refuses twice the size
    Image.new("RGB", (36, 32)).save(image)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert main(["predict", str(image), "--model", run_dir]) == 0
    assert seen == []


def test_predict_refuses_a_folder_without_images_and_two_formats(run_dir, image, fails, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no images in" in fails("predict", tmp_path / "empty", "--model", run_dir)
    assert "give one of --json and --csv" in fails("predict", image, "--json", "--csv", "--model", run_dir)


def test_predict_refuses_a_model_of_other_channels(image, fails, tmp_path):
    model = timm.create_model(ARCH, in_chans=2)
    save_for_hf(model, tmp_path / "two", model_args={"in_chans": 2}, safe_serialization=True)  # timm 1.0.30 forgets it
    assert "takes 2 channels" in fails("predict", image, "--model", tmp_path / "two")


def test_evaluate_prints_json_and_writes_the_same(run_dir, data_dir, capsys, tmp_path):
    out = tmp_path / "scores" / "a.json"
    args = ["evaluate", run_dir, "--data-dir", str(data_dir), "--workers", "0", "--json", "--out", str(out)]
    assert main(args) == 0
    printed = json.loads(capsys.readouterr().out)
    assert json.loads(out.read_text()) == printed
    assert printed["n"] == 2
    assert printed["model"] == run_dir
    assert {score["name"] for score in printed["per_class"]} == {"cat", "dog"}
    assert [path.name for path in out.parent.iterdir()] == ["a.json"]


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_no_exif_reads_images_as_timm_does(run_dir, data_dir, capsys, command):
    exif, path = Image.Exif(), data_dir / "test" / "cat" / "[bold]0.png"
    exif[0x0112] = 6
    pixels = torch.randint(256, (20, 30, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).numpy()
    found = []
    for image, options in (
        (Image.fromarray(pixels), ()),
        (Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_270), ("turned", "--no-exif")),
    ):
        image.save(path, **({} if "turned" in options else {"exif": exif}))
        args = [command, run_dir, "--data-dir", str(data_dir), "--workers", "0"]
        args = ["predict", str(path), "--model", run_dir] if command == "predict" else args
        assert main([*args, "--json", *options[1:]]) == 0
        found.append(capsys.readouterr().out)
    assert found[0] == found[1]  # what EXIF turns is what was stored turned
    Image.fromarray(pixels).save(path)
    assert main([*args, "--json"]) == 0
    assert capsys.readouterr().out != found[0]


def test_evaluate_prints_tables_and_takes_the_folder_of_the_split_itself(run_dir, data_dir, capsys):
    assert main(["evaluate", run_dir, "--data-dir", str(data_dir / "test"), "--workers", "0"]) == 0
    out = capsys.readouterr().out
    assert "95% interval" in out
    assert "n = 2" in out
    assert "cat" in out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data / "nowhere", "no data folder"),
        (lambda data: (data / "test").rename(data / "train").parent, "has no split 'test'; it has train"),
        (lambda data: [p.unlink() for p in data.rglob("*.png")] and data, "no images in"),
        (
            lambda data: (data / "test" / "cat" / "x.png").write_bytes(b"no image") and data,
            "x.png: cannot identify image file",
        ),
        (
            lambda data: (data / "test" / "cow").mkdir() or data,
            "class folder 'cow' is not one of the model's 10 classes",
        ),
    ],
    ids=["missing", "no split", "empty", "unreadable", "classes"],
)
def test_evaluate_refuses_bad_data_and_writes_nothing(run_dir, data_dir, fails, tmp_path, change, message):
    folder, out = change(data_dir), tmp_path / "out" / "scores.json"
    assert message in fails("evaluate", run_dir, "--data-dir", folder, "--workers", "0", "--out", out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("se_resnet20_cifr", "unknown model 'se_resnet20_cifr'; did you mean se_resnet20_cifar"),
        (f"{ARCH}.imagenet", "no tag 'imagenet'"),
        ("runs/none", "no such model or directory: runs/none"),
    ],
)
def test_evaluate_refuses_an_unknown_model(data_dir, fails, spec, message):
    assert message in fails("evaluate", spec, "--data-dir", data_dir)


@pytest.mark.parametrize(("name", "content"), [("config.json", b"{"), ("model.safetensors", b"\0" * 20)])
def test_evaluate_refuses_a_broken_model_directory(data_dir, fails, tmp_path, name, content):
    save_for_hf(timm.create_model(ARCH), tmp_path / "broken", safe_serialization=True)
    (tmp_path / "broken" / name).write_bytes(content)
    assert name in fails("evaluate", tmp_path / "broken", "--data-dir", data_dir)


def test_evaluate_refuses_a_checkpoint_of_another_architecture(run_dir, data_dir, fails, tmp_path):
    torch.save(timm.create_model("resnet20_cifar").state_dict(), tmp_path / "plain.pth.tar")
    line = fails("evaluate", run_dir, "--data-dir", data_dir, "--checkpoint", tmp_path / "plain.pth.tar")
    assert f"does not hold weights of {ARCH}: missing layer1.0.se" in line


def test_an_output_that_cannot_be_written_is_found_first(data_dir, fails, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert "cannot write" in fails("demo", "--out", tmp_path / "file", "--model", "no_such_model")
    evaluate = ("evaluate", "no_such_model", "--data-dir", data_dir, "--out")
    assert "cannot write" in fails(*evaluate, tmp_path / "file" / "scores.json")
    assert "it is a folder" in fails(*evaluate, tmp_path)


def test_a_full_disk_and_other_errors_of_the_system_are_one_line(monkeypatch, fails, tmp_path, run_dir):
    with Path("/dev/full").open("w") as full:
        listed = subprocess.run([sys.executable, "-m", "seattn", "list", "--json"], stdout=full, stderr=subprocess.PIPE)
    assert (listed.returncode, listed.stderr.count(b"\n")) == (2, 1)
    assert listed.stderr.startswith(b"seattn: No space left on device: the output or a temporary file")
    assert "File name too long" in fails("report", tmp_path / ("a" * 300))
    for error, message in (
        (PermissionError(13, "Permission denied", "secret/x.png"), "Permission denied: secret/x.png"),
        (OSError("a library's own text\nand more"), "a library's own text"),
        (SafetensorError("I/O error: No space left on device"), "I/O error: No space left on device"),
    ):

        def broken(*args, error=error, **kwargs):
            raise error

        monkeypatch.setattr(seattn.cli.demo, "run_demo", broken)
        assert fails("demo", "--out", tmp_path) == f"seattn: {message}\n"


def test_demo_prints_the_reports_path_unbroken(monkeypatch, capsys, tmp_path):
    calls = []
    monkeypatch.setattr(seattn.cli.demo, "run_demo", lambda *args, **kwargs: calls.append(args))
    out = tmp_path / ("long" * 30) / "[red]"
    assert main(["demo", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"report: {out / 'report.html'}\n"
    assert calls == [(DEFAULT_MODEL, out)]


def test_messages_of_the_package_go_to_stderr_as_plain_lines(run_dir, tmp_path, capsys):
    for i in range(10):
        (tmp_path / f"{i}").mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / f"{i}" / "0.png")
    assert main(["evaluate", run_dir, "--data-dir", str(tmp_path), "--workers", "0", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["n"] == 10
    assert err.startswith(
        "class folder '0' is not a class of the model: folders are matched to its classes by their order"
    )
    assert err.count("\n") == 1


RECIPE = f"{ARCH}.cifar10"
OPTIONS = ["--out", "o", "--resume", "--device", "cuda", "--seed", "3", "--epochs", "2", "--skip-bad", "--no-test"]
SETTINGS = ["--set", "lr=5.0e-2", "--set", "seattn.resize=[[16, 2]]", "--set", "aa="]


@pytest.fixture
def trained(monkeypatch):
    """The arguments of each call of `train`, which does nothing."""
    calls = []
    monkeypatch.setattr(seattn.training.driver, "train", lambda *args, **kwargs: calls.append((args, kwargs)))
    return calls


def test_train_passes_its_options_on(trained):
    labels = ["--labels", "a.csv", "--test-labels", "b.csv", "--no-exif"]
    assert main(["train", RECIPE, "--data-dir", "d"]) == 0
    assert main(["train", RECIPE, "--data-dir", "d", *OPTIONS, *SETTINGS, *labels]) == 0
    packaged = load_recipe(packaged_configs()[RECIPE])
    changes = {"lr": 0.05, "seattn.resize": [[16, 2]], "aa": None, "seed": 3, "epochs": 2, "seattn.exif": False}
    changed = parse_recipe(replace_keys(packaged.to_dict(), changes))
    plain = {"resume": False, "device": None, "skip_bad": False, "read_test": True, "labels": None, "test_labels": None}
    given = {"resume": True, "device": "cuda", "skip_bad": True, "read_test": False}
    assert trained == [
        ((packaged, Path("d"), None), plain),
        ((changed, Path("d"), Path("o")), {**given, "labels": Path("a.csv"), "test_labels": Path("b.csv")}),
    ]


def test_train_without_a_recipe_takes_options_alone(trained, data_dir, fails):
    (data_dir / "test").rename(data_dir / "train")
    options = ["--model", "resnet20_cifar", "--lr", "0.1", "--epochs", "3", "--batch-size", "16", "--set", "opt=adamw"]
    assert main(["train", *options, "--data-dir", str(data_dir)]) == 0
    (((recipe, *_), _),) = trained
    assert recipe == Recipe(model="resnet20_cifar", lr=0.1, epochs=3, batch_size=16, opt="adamw", num_classes=2)
    assert "give a recipe (--list shows those of this package), or --model and --lr" in fails(
        "train", "--data-dir", "d"
    )
    assert "the options: lr must be greater than 0" in fails("train", *options, "--lr", "0", "--data-dir", data_dir)


@pytest.mark.parametrize(
    ("setting", "option"),
    [("epochs=3", "--epochs 2"), ("batch_size=8", "--batch-size 4"), ("seattn.exif=true", "--no-exif")],
)
@pytest.mark.parametrize("command", ["train", "finetune"])
def test_a_key_is_set_once(fails, command, setting, option):
    line = fails(command, "se_resnet20_cifar.cifar10", "--data-dir", "d", "--set", setting, *option.split())
    assert f"--set {setting.partition('=')[0]}=… and {option.split()[0]} are the same setting; give one of them" in line


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", "se_resnet20_cifar.cifar"], "did you mean 'se_resnet20_cifar.cifar10'? --list shows the names"),
        (["ablate", "atention"], "did you mean 'attention'? --list shows the names"),
        (["search", "zoo_configs/searches/x.yaml", "--trials", "1"], "no such name in this package; --list shows"),
        (["train", "somewhere/se_resnet20_cifar.cifar10"], "no such file: somewhere/se_resnet20_cifar.cifar10"),
    ],
)
def test_a_recipe_that_is_neither_a_file_nor_packaged_is_named_with_the_nearest(fails, args, message):
    assert message in fails(*args, "--data-dir", "d")


def test_a_file_here_goes_before_the_packaged_one_and_a_folder_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "attention").mkdir()
    (tmp_path / "gate").write_text("")
    (tmp_path / "stem").symlink_to("nowhere")
    assert find_config(Path("attention"), "ablations") == packaged_configs("ablations")["attention"]
    assert find_config(Path("zoo_configs/ablations/stem.yaml"), "ablations") == packaged_configs("ablations")["stem"]
    assert find_config(Path("gate"), "ablations") == Path("gate")
    assert find_config(tmp_path / "stem", "ablations") == tmp_path / "stem"


@pytest.mark.parametrize(
    ("command", "kind", "line"),
    [
        ("train", "", "resnet20_cifar.cifar10.cpu: ResNet-20 on CIFAR-10"),
        ("ablate", "ablations", "stem: What ResNet-18 needs at 32 x 32: one recipe of ten epochs, five nets and "),
        ("search", "searches", "se_resnet18.butterfly75: SE-ResNet-18 on butterflies"),
    ],
)
def test_packaged_recipes_studies_and_searches_are_listed(capsys, command, kind, line):
    assert main([command, "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == list(packaged_configs(kind))
    assert any(shown.startswith(line) for shown in lines)


@pytest.mark.parametrize(("rank", "printed"), [("0", True), ("1", False)])
def test_of_many_processes_the_first_one_talks(monkeypatch, capsys, rank, printed):
    def talk(*args, **kwargs):
        logging.getLogger("seattn").info("epoch 1")

    monkeypatch.setattr(seattn.training.driver, "train", talk)
    monkeypatch.setenv("RANK", rank)
    assert main(["train", RECIPE, "--data-dir", "d"]) == 0
    assert ("epoch 1" in capsys.readouterr().err) == printed


def test_train_refuses_a_missing_recipe(fails, tmp_path):
    assert "nowhere.yaml" in fails("train", tmp_path / "nowhere.yaml", "--data-dir", tmp_path)
