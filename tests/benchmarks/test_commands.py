"""The commands of benchmarks/: one line on stderr and exit code 2 for what is wrong, and nothing written."""

import re

import pytest

from benchmarks import gpu, plots, record, render, run
from benchmarks.evidence import rows as evidence
from benchmarks.speed.rows import SpeedRow
from seattn.core.records import append_rows
from tests.helpers.speed_rows import ROW


@pytest.mark.parametrize("module", [run, gpu, plots, render, record], ids=lambda module: module.__name__)
def test_an_unknown_option_is_named(command_fails, module):
    given = ["a"] if module is record else []
    assert "unrecognized arguments: --nonsense" in command_fails(module, *given, "--nonsense")


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        (run, ["--only", "nonsense"], "invalid choice: 'nonsense'"),
        (run, ["--minutes", "many"], "--minutes: many is not a number of minutes"),
        (run, ["--minutes", "nan"], "nan is not a number of minutes"),
        (run, ["--minutes", "-1"], "-1 is not a number of minutes"),
        (run, ["--quick", "--only", "models", "--case", "se"], "--case must be one of se_resnet20_cifar; got se"),
        (run, ["--quick", "--mode", "training"], "--mode must be one of forward, forward_backward, training_step, "),
        (gpu, ["now"], "unrecognized arguments: now"),
        (render, ["now"], "unrecognized arguments: now"),
        (record, [], "give folders of runs, or --classes"),
    ],
)
def test_a_wrong_argument_is_named(command_fails, module, arguments, message):
    assert message in command_fails(module, *arguments)


def test_an_output_that_is_a_folder_is_refused_before_anything_is_timed(command_fails, tmp_path):
    assert f"{tmp_path} is not a plain file" in command_fails(run, "--quick", "--out", tmp_path)


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.csv"
    append_rows(SpeedRow, path, [ROW])
    return path


DAMAGES = {
    "columns": (lambda text: text.replace("case,", "", 1), "has other columns than SpeedRow"),
    "number": (
        lambda text: text.replace("0.004", "half", 1),
        "line 2, is not a valid SpeedRow: median must be a number, got 'half'",
    ),
    "boolean": (lambda text: text.replace("False", "maybe", 1), "line 2, .* must be true or false, got 'maybe'"),
    "cut": (lambda text: text[: text.rindex(",")], "line 2, has too many cells or too few"),
    "too long": (lambda text: text.rstrip() + ",1\n", "line 2, has too many cells or too few"),
    "binary": (lambda text: "\udcff", "is not text in UTF-8"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_plots_name_the_damaged_file_and_write_nothing(command_fails, rows, damage, message):
    rows.write_text(damage(rows.read_text()), errors="surrogateescape")
    assert re.search(f"^plots: {re.escape(str(rows))}.* {message}", command_fails(plots, rows))
    assert [path.name for path in rows.parent.iterdir()] == [rows.name]


def test_plots_name_a_missing_file_and_a_folder(command_fails, tmp_path):
    assert "no such file" in command_fails(plots, tmp_path / "none.csv")
    assert "is not a plain file" in command_fails(plots, tmp_path)


def test_plots_without_rows_say_what_makes_them(command_fails, rows):
    rows.write_text(rows.read_text().splitlines()[0] + "\n")
    assert "no rows of operators to draw; make bench writes them" in command_fails(plots, rows)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("{}", "is not a valid AccuracyRow: the key 'name' is missing"),
        ("[1]", "must hold a JSON object"),
        ("3", "must hold a JSON object"),
        ('{"conditions": {}}', "the key 'conditions.hardware' is missing"),
        ("\0", "is not valid JSON"),
    ],
)
def test_record_names_a_damaged_result(command_fails, tmp_path, text, message):
    (tmp_path / "result.json").write_text(text)
    assert re.search(f"{tmp_path / 'result.json'} .*{message}", command_fails(record, tmp_path))


def test_an_error_of_the_system_is_one_line(command_fails, tmp_path):
    assert "File name too long: " in command_fails(record, tmp_path / ("a" * 300))


def test_record_names_a_run_that_is_not_there(command_fails, tmp_path):
    assert "holds no finished run: it has no result.json" in command_fails(record, tmp_path / "nowhere")


def test_render_names_damaged_rows(command_fails, rows, monkeypatch):
    rows.write_text("a,b\n1,2\n")
    monkeypatch.setattr(render, "read_rows", lambda: evidence.read_rows(rows))
    assert "has other columns than AccuracyRow" in command_fails(render)
