"""Exported nets against PyTorch: what is counted and timed, the rows, and the tables rendered from them."""

import dataclasses

import pytest
import torch

from benchmarks import render
from benchmarks.deploy import run
from benchmarks.deploy.forms import Form, make_forms
from benchmarks.deploy.rows import FORMS, DeployRow, deploy_files, newest
from benchmarks.deploy.tables import render_deploy, render_deploy_page
from benchmarks.speed.rows import speed_files
from seattn.core.records import append_rows, read_rows
from seattn.deploy import exporting
from tests.deploy.conftest import photos  # noqa: F401  a fixture
from tests.helpers.studies import WHERE

ROW = DeployRow(
    name="se_resnet20_cifar.cifar10",
    form="eager",
    version="2.15.0",
    bytes=1_230_000,
    images=10_000,
    top1=0.9113,
    top1_low=0.9056,
    top1_high=0.9167,
    batch_size=1,
    n=40,
    median=0.005,
    p20=0.0049,
    p80=0.0052,
    ratio=1.0,
    ratio_p20=1.0,
    ratio_p80=1.0,
    conditions=WHERE,
)


def rows(name=ROW.name, **changes):
    """The rows of all forms of a net, each form twice as fast as the one before it."""
    made = []
    for place, form in enumerate(FORMS):
        for batch_size, median in ((1, 0.008), (32, 0.064)):
            row = dataclasses.replace(ROW, name=name, form=form, batch_size=batch_size, median=median / 2**place)
            version = "1.32.0" if form.startswith("onnx") else "2026.4" if form.startswith("openvino") else "2.15.0"
            made.append(dataclasses.replace(row, ratio=2.0**place, version=version, **changes))
    return made


def test_every_image_is_counted_once_in_batches_of_one_size():
    labels = torch.arange(70) % 10
    images = labels.float().view(70, 1, 1, 1).clone()
    images[[3, 69]] += 1  # of another class
    sizes = []

    def logits(x):
        sizes.append(len(x))
        return torch.nn.functional.one_hot(x.flatten().long() % 10, 10)

    assert run.count_correct(logits, images, labels) == 68
    assert sizes == [32, 32, 32]


def test_a_work_runs_once_untimed_after_a_rest(monkeypatch):
    events = []
    monkeypatch.setattr(run.time, "sleep", lambda seconds: events.append("rest"))
    monkeypatch.setattr(run, "cpu_clock", lambda work: events.append("start") or work() or 1.5)
    assert run.rested_clock(lambda: events.append("work")) == 1.5
    assert events == ["rest", "work", "start", "work"]


@pytest.fixture
def cifar(photos):  # noqa: F811
    return photos


def fake_forms(*names):
    """Forms that take the mean of the images for the logits."""

    def make(name, data_dir, folder, batch_sizes, log):
        assert (data_dir / "train").is_dir()
        return {form: Form(lambda x: x.mean((2, 3)).repeat(1, 4)[:, :10], 1000, "1.0") for form in names}

    return make


def test_the_command_writes_a_row_for_each_form_and_batch_size(cifar, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "make_forms", fake_forms(*FORMS))
    out = tmp_path / "rows.csv"
    assert run.main(["--data-dir", str(cifar), "--quick", "--out", str(out), "--net", ROW.name]) == 0
    written = read_rows(DeployRow, out)
    assert [(row.form, row.batch_size) for row in written] == [(form, size) for size in (1, 32) for form in FORMS]
    for row in written:
        assert (row.name, row.version, row.bytes, row.images, row.n) == (ROW.name, "1.0", 1000, 59, 2)
        assert row.p20 <= row.median <= row.p80
        assert row.top1_low < row.top1 < row.top1_high
        assert row.form != "eager" or (row.ratio, row.ratio_p20, row.ratio_p80) == (1, 1, 1)
    assert f"{ROW.name}: openvino, 32 images: " in capsys.readouterr().out


def test_a_form_that_is_left_out_has_no_rows_and_fails_the_command(cifar, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "make_forms", fake_forms("eager", "onnxruntime"))
    out = tmp_path / "rows.csv"
    assert run.main(["--data-dir", str(cifar), "--quick", "--out", str(out), "--net", ROW.name]) == 1
    assert {row.form for row in read_rows(DeployRow, out)} == {"eager", "onnxruntime"}


def test_wrong_arguments_are_one_line_before_anything_is_timed(command_fails, tmp_path):
    assert "--data-dir" in command_fails(run)
    assert "invalid choice: 'resnet'" in command_fails(run, "--data-dir", tmp_path, "--net", "resnet")
    assert "no data folder" in command_fails(run, "--data-dir", tmp_path / "nowhere", "--quick")
    (tmp_path / "other.csv").write_text("a,b\n")
    line = command_fails(run, "--data-dir", tmp_path, "--out", tmp_path / "other.csv")
    assert "has other columns than DeployRow" in line


@pytest.mark.slow
def test_all_forms_of_a_net_agree_on_the_images(cifar, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "MOST_IMAGES", 30)  # of the train split; the others calibrate
    lines = []
    forms = make_forms(ROW.name, cifar, tmp_path, (1, 32), lines.append)
    assert list(forms) == list(FORMS), lines
    images, labels = run._test_images(ROW.name, cifar, None)
    correct = {name: run.count_correct(form.run, images, labels) for name, form in forms.items()}
    assert max(correct.values()) - min(correct.values()) <= 3
    assert len({correct[name] for name in ("eager", "compiled", "folded", "onnxruntime", "openvino")}) == 1
    assert forms["openvino_int8"].bytes < 0.6 * forms["openvino"].bytes
    assert forms["onnxruntime_int8"].bytes < 0.5 * forms["onnxruntime"].bytes


def test_the_readme_has_six_lines_with_columns_for_each_net():
    table = render_deploy([*rows(), *rows("se_resnet18_cifar.cifar10", bytes=45_000_000, top1=0.9305)])
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 6
    assert lines[0].startswith("| a processor, 2 threads | `se_resnet20_cifar`: MB | top-1 % |")
    assert lines[2] == "| PyTorch | 1.23 | 91.13 | 8 | 500 | 45.00 | 93.05 | 8 | 500 |"
    assert lines[-1] == "| OpenVINO, 8 bits | 1.23 | 91.13 | 0.125 | 32,000 | 45.00 | 93.05 | 0.125 | 32,000 |"
    assert len({line.count("|") for line in lines}) == 1
    assert "torch 2.15.0, onnxruntime 1.32.0, openvino 2026.4, timm 1.0.31, seattn at `abc1234` of 2026-01-02." in table
    assert render_deploy([]) == ""


def test_a_form_that_one_net_lacks_has_empty_cells():
    lacking = [row for row in rows("se_resnet18_cifar.cifar10") if row.form != "openvino_int8"]
    assert "| OpenVINO, 8 bits | 1.23 | 91.13 | 0.125 | 32,000 |  |  |  |  |" in render_deploy([*rows(), *lacking])


def test_the_page_has_a_table_for_each_net_with_spreads():
    page = render_deploy_page([*rows(), *rows("se_resnet18_cifar.cifar10")])
    assert page.count("MB | top-1 % (95 % interval)") == 2
    assert "| PyTorch | 1.23 | 91.13 (90.56 to 91.67) | 8 (4.9 to 5.2) |  | 64 (4.9 to 5.2) |  |" in page
    assert "fold=True)` | 1.23 | 91.13 (90.56 to 91.67) | 2 (4.9 to 5.2) | 4.00 × (1.00 to 1.00) |" in page


def test_the_last_run_of_a_net_replaces_its_rows():
    later = dataclasses.replace(WHERE, commit="def5678")
    table = render_deploy([*rows(), *rows(conditions=later, top1=0.5)[:4]])
    assert "91.13" not in table
    assert "`def5678`" in table
    assert "OpenVINO |" not in table


def test_readme_and_results_show_the_files_of_rows(tmp_path, monkeypatch):
    append_rows(DeployRow, tmp_path / "deploy-cpu-a-2t.csv", rows(top1=0.81))
    earlier = dataclasses.replace(WHERE, date="2025-01-02")
    append_rows(DeployRow, tmp_path / "deploy-cpu-b-2t.csv", rows(top1=0.72, conditions=earlier))
    assert speed_files(tmp_path) == []
    monkeypatch.setattr(render, "deploy_files", lambda: deploy_files(tmp_path))
    readme = render.render_readme((render.ROOT / "README.md").read_text(encoding="utf-8"))
    results = render.render_results()
    assert [text in readme for text in ("| 81.00 |", "| 72.00 |")] == [True, False]
    assert [text in results for text in ("81.00 (", "72.00 (")] == [True, True]
    assert render.render_readme(readme) == readme


def test_committed_rows_are_of_clean_commits_and_all_test_images():
    for path in deploy_files():
        for row in read_rows(DeployRow, path):
            assert row.conditions.commit, path
            assert not row.conditions.commit.endswith("+"), path
            assert row.n >= 15, path
            assert row.images == 10_000, path


def test_committed_rows_are_of_the_weights_that_the_package_has():
    shipped = {facts.name: facts.row.top1 for facts in render.all_facts()}
    for path in deploy_files():
        for row in newest(read_rows(DeployRow, path)):
            if row.form == "eager":
                assert row.top1 == pytest.approx(shipped[row.name], abs=0.0005), f"{path}: make bench-deploy is due"
