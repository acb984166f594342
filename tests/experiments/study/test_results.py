"""What a study says of the runs it finds: table, plot, rows, and a line for each thing that is wrong with them."""

import csv
import json
import re

import pytest
import yaml

from seattn.__main__ import main
from seattn.experiments.study.ablation import ablate
from seattn.experiments.study.design import load_ablation
from seattn.experiments.study.results import read_rows
from seattn.experiments.study.runs import runs_of
from tests.helpers.commands import read_csv
from tests.helpers.studies import finish, finish_all, write_study

TOP1 = {("a", 0): 0.900, ("a", 1): 0.910, ("b", 0): 0.905, ("b", 1): 0.925}
FULL = {
    "variants": None,
    "design": "full",
    "factors": {"se": {True: {"model": "se_resnet20_cifar"}, False: {}}, "lr": {"high": {}, "low": {"lr": 0.01}}},
}


@pytest.fixture
def study(tmp_path):
    return write_study(tmp_path)


def table(out, name="x"):
    """table.csv by the variant's or effect's name."""
    return {row["name"]: row for row in read_csv(out / name / "table.csv")}


def test_table_has_what_the_seeds_give(study, out):
    finish_all(study, out, lambda *key: TOP1[key])
    result = ablate(study, None, out)
    assert result.missing == ()
    a, b = result.variants
    assert (a.against, a.summary.mean, b.summary.mean) == (None, pytest.approx(90.5), pytest.approx(91.5))
    assert (b.against.n, b.against.mean) == (2, pytest.approx(1.0))  # 0.5 and 1.5
    assert b.against.std == pytest.approx(0.5**0.5)
    text = (out / "x" / "table.md").read_text()
    assert "| b | 2 | 91.50 ± 1.41 |" in text
    assert "| +1.00 | −5.35 to +7.35 | 0.30 | 0.30 | +0.50 to +1.50 | 272,019 | 1.0 | 2 |" in text
    assert "1,000 held-out images of colours" in text
    assert "bootstrap interval lies between the smallest and the largest of 2 differences" in text
    assert "nan" not in text + (out / "x" / "table.csv").read_text()
    assert float(table(out)["b"]["p"]) == b.against.p


def test_only_seeds_of_both_are_paired_and_what_is_missing_is_said(study, out, capsys):
    finish_all(study, out, lambda *key: {**TOP1, ("a", 1): None}[key])
    assert main(["ablate", str(study), "--no-train", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "missing: a, seed 1\n" in shown
    b = table(out)["b"]
    assert (b["n"], b["pairs"], float(b["difference"]), b["p"]) == ("2", "1", pytest.approx(0.5), "")
    assert "Missing: a, seed 1." in (out / "x" / "table.md").read_text()


def test_one_seed_has_no_spread_and_no_p(tmp_path, out):
    runs = runs_of(load_ablation(study := write_study(tmp_path, seeds=[5])), out)
    finish(runs[0], 0.8, top1_low=0.77, top1_high=0.83)
    finish(runs[1], 0.9, top1_low=0.89, top1_high=0.91)
    ablate(study, None, out)
    text = (out / "x" / "table.md").read_text()
    assert "| b | 1 | 90.00 | - | +10.00 | - | - | - | - |" in text
    assert "One seed" in text
    assert "uncertain by up to ± 3.00 points (95 %, Wilson)" in text


def test_without_a_reference_run_there_is_no_difference(study, out):
    finish_all(study, out, lambda variant, seed: TOP1[variant, seed] if variant == "b" else None)
    result = ablate(study, None, out)
    assert [v.against for v in result.variants] == [None, None]
    assert (out / "x" / "plot.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("float32_runs", "note"),
    [
        ([], None),
        ([2, 3], "Trained in bfloat16 (seed 0) and float32 (seed 1): the two runs of each pair in the same dtype."),
        (
            [3],
            "Trained in bfloat16 (seeds 0, 1) and float32 (seed 1). The dtypes of these pairs differ, too: b, seed 1.",
        ),
        (
            [0],
            "Trained in bfloat16 (seeds 0, 1) and float32 (seed 0). The dtypes of these pairs differ, too: b, seed 0.",
        ),
    ],
)
def test_runs_in_several_dtypes_are_named(study, out, float32_runs, note):
    for i, run in enumerate(runs_of(load_ablation(study), out)):  # a and b of seed 0, then of seed 1
        finish(run, 0.9, dtype="float32" if i in float32_runs else "bfloat16")
    ablate(study, None, out)
    text = (out / "x" / "table.md").read_text()
    assert (note in text) if note else ("Trained in" not in text)


def test_nothing_there_lists_all_and_writes_nothing(study, out, capsys):
    assert main(["ablate", str(study), "--dry-run", "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines() == [f"missing: {v}, seed {s}" for v in "ab" for s in (0, 1)]
    assert not out.exists()


def test_an_unfinished_run_says_how_far_it_is(study, out, capsys):
    run = runs_of(load_ablation(study), out)[0]
    run.folder.mkdir(parents=True)
    (run.folder / "summary.csv").write_text("epoch\n0\n")
    assert main(["ablate", str(study), "--no-train", "--out", str(out)]) == 0
    assert "missing: a, seed 0, 1 of 2 epochs\n" in capsys.readouterr().out


def test_the_terminals_table_fits_into_80_characters(study, out, capsys):
    finish_all(study, out, lambda *key: TOP1[key])
    main(["ablate", str(study), "--no-train", "--out", str(out)])
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line.rstrip()) for line in lines if str(out) not in line) <= 80
    assert any(
        re.match(r" b +2 91\.50 ± 1\.41 +\+1\.00 −5\.35 to \+7\.35 +0\.30 +272,019 +1\.0", line) for line in lines
    )


def test_main_effects_are_means_over_the_others_levels(tmp_path, out):
    study = write_study(tmp_path, **FULL)
    points = {
        "se=yes, lr=high": (90, 91),
        "se=yes, lr=low": (80, 83),
        "se=no, lr=high": (88, 89),
        "se=no, lr=low": (84, 85),
    }
    finish_all(study, out, lambda variant, seed: points[variant][seed] / 100)
    result = ablate(study, None, out)
    se, lr = result.effects
    assert se.name == "se: no against yes"
    assert se.by_seed == pytest.approx({0: (-2 + 4) / 2, 1: (-2 + 2) / 2})
    assert (se.difference.n, se.difference.mean) == (2, pytest.approx(0.5))
    assert lr.by_seed == pytest.approx({0: (-10 - 4) / 2, 1: (-8 - 4) / 2})
    assert lr.difference.p_holm == pytest.approx(2 * lr.difference.p)
    assert "| lr: low against high | 2 | −6.50 |" in (out / "x" / "table.md").read_text()
    assert float(table(out)["lr: low against high"]["difference"]) == pytest.approx(-6.5)


def test_main_effects_take_the_seeds_that_all_levels_have(tmp_path, out):
    study = write_study(tmp_path, **FULL)
    finish_all(study, out, lambda variant, seed: None if (variant, seed) == ("se=no, lr=low", 1) else 0.8 + 0.01 * seed)
    assert [effect.difference.n for effect in ablate(study, None, out).effects] == [1, 1]


def test_rows_are_kept_merged_and_sorted(tmp_path, study, out):
    runs = finish_all(study, out, lambda *key: TOP1[key])
    ablate(study, None, out)
    rows = read_rows(out / "x" / "rows.csv")
    assert [(row.variant, row.result.seed) for row in rows] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert [row.run for row in rows] == [runs[i].name for i in (0, 2, 1, 3)]
    first = (out / "x" / "rows.csv").read_bytes()
    (runs[0].folder / "result.json").unlink()
    ablate(study, None, out)  # the row outlives its run
    assert (out / "x" / "rows.csv").read_bytes() == first
    finish(runs[0], 0.7)
    ablate(study, None, out)  # and gives way to a new result
    assert read_rows(out / "x" / "rows.csv")[0].result.top1 == 0.7


def test_the_same_rows_give_the_same_files(study, out):
    finish_all(study, out, lambda *key: TOP1[key])
    ablate(study, None, out)
    files = {path.name: path.read_bytes() for path in (out / "x").iterdir()}
    ablate(study, None, out)
    assert files == {path.name: path.read_bytes() for path in (out / "x").iterdir()}
    assert {"rows.csv", "table.md", "table.csv", "plot.png", "plot.svg"} <= set(files)


def test_studies_share_runs_and_rows_from_elsewhere_count(tmp_path, out):
    one, two = (
        write_study(tmp_path, "one"),
        write_study(tmp_path, "two", variants={"c": {"lr": 0.02}, "d": {"lr": 0.3}}),
    )
    finish_all(one, out, lambda *key: TOP1[key])
    ablate(one, None, out)
    shared = ablate(two, None, out)
    assert [(row.study, row.variant, row.result.top1) for row in shared.rows] == [
        ("two", "c", 0.905),
        ("two", "c", 0.925),
    ]
    elsewhere = ablate(one, None, tmp_path / "empty", rows=out / "one" / "rows.csv")
    assert elsewhere.missing == ()
    assert (tmp_path / "empty" / "one" / "rows.csv").read_bytes() == (out / "one" / "rows.csv").read_bytes()


def test_rows_written_before_a_field_was_added_are_read(study, out, monkeypatch):
    finish_all(study, out, lambda *key: TOP1[key])
    ablate(study, None, out)
    path = out / "x" / "rows.csv"
    table = [{key: cell for key, cell in row.items() if key != "weights_dtype"} for row in read_csv(path)]
    with path.open("w") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    assert [row.result.weights_dtype for row in read_rows(path)] == ["float32"] * 4
    assert read_rows(path)[1].result.top1 == TOP1["a", 1]


def test_seeds_replace_the_studys(study, out):
    finish_all(study, out, lambda *key: TOP1[key])
    assert [v.summary.n for v in ablate(study, None, out, seeds=[1]).variants] == [1, 1]
    assert len(read_rows(out / "x" / "rows.csv")) == 2
    assert [row[1:2] for row in ablate(study, None, out, seeds=[0, 1, 7]).missing] == [(7,), (7,)]


def test_runs_of_other_images_are_said_to_be_no_comparison(study, out):
    runs = finish_all(study, out, lambda *key: TOP1[key])
    finish(runs[1], 0.9, n=500)
    ablate(study, None, out)
    assert "not scored on the same images" in (out / "x" / "table.md").read_text()


def test_a_variants_name_may_have_a_bar(tmp_path, out):
    study = write_study(tmp_path, variants={"a|b": {}, "c": {"lr": 1}})
    finish_all(study, out, lambda *_: 0.9)
    ablate(study, None, out)
    assert "| a\\|b | 2 |" in (out / "x" / "table.md").read_text()


def damage_recipe(run):
    changed = yaml.safe_load((run.folder / "recipe.yaml").read_text())
    (run.folder / "recipe.yaml").write_text(yaml.safe_dump({**changed, "lr": 0.7}))


def rewrite(**changes):
    def damage(run):
        result = json.loads((run.folder / "result.json").read_text())
        (run.folder / "result.json").write_text(json.dumps({**result, **changes}))

    return damage


DAMAGES = {
    "another recipe": (damage_recipe, "holds a run of another recipe than its name says; move it away"),
    "no recipe": (lambda run: (run.folder / "recipe.yaml").unlink(), "cannot read recipe .*recipe.yaml: No such file"),
    "test split": (rewrite(split="test"), "result.json is of the test split; a study compares on what is held out"),
    "cut": (lambda run: (run.folder / "result.json").write_text('{"name"'), "result.json is not valid JSON"),
    "list": (lambda run: (run.folder / "result.json").write_text("[]"), "result.json must hold a JSON object"),
    "text": (rewrite(top1="high"), "result.json is not a valid AccuracyRow: top1 must be a number, got 'high'"),
    "nan": (rewrite(top1=float("nan")), "result.json is not a valid AccuracyRow: top1 must be .*, got nan"),
    "unknown": (rewrite(top2=0.9), "result.json is not a valid AccuracyRow: unknown key 'top2'"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_run_that_is_not_what_it_should_be_is_named(fails, study, out, damage, message):
    runs = finish_all(study, out, lambda *key: TOP1[key])
    damage(runs[1])
    line = fails("ablate", study, "--no-train", "--out", out)
    assert re.search(message, line)
    assert runs[1].name in line
    assert not (out / "x").exists()


ROWS = {
    "columns": (
        lambda text: text.replace("study,variant", "a,b", 1),
        "has other columns .* study is missing, .* a is unknown",
    ),
    "other column": (
        lambda text: text.replace(",top5,", ",top6,", 1),
        "has other columns .*top5 is missing, top6 is unknown",
    ),
    "number": (
        lambda text: text.replace(",0.9,", ",ninety,", 1),
        r"line 2, is not a valid StudyRow: result.top1 must be a number, got 'ninety'",
    ),
    "cut": (lambda text: text[: text.rindex(",")], "line 5, has too many cells or too few"),
    "longer": (lambda text: text.rstrip() + ",1\n", "line 5, has too many cells or too few"),
    "empty": (lambda text: "", "has other columns than StudyRow: study is missing"),
    "binary": (lambda text: "study,variant,run\n\udcff", "is not text in UTF-8"),
}


@pytest.mark.parametrize(("damage", "message"), ROWS.values(), ids=ROWS)
def test_damaged_rows_are_named(fails, tmp_path, study, out, damage, message):
    finish_all(study, out, lambda *key: TOP1[key])
    ablate(study, None, out)
    path = tmp_path / "other.csv"
    path.write_text(damage((out / "x" / "rows.csv").read_text()), errors="surrogateescape")
    line = fails("ablate", study, "--no-train", "--out", tmp_path / "new", "--rows", path)
    assert re.search(f"{re.escape(str(path))}.* ?{message}", line)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "give --data-dir, the folder of train/<class>/<image>; or --no-train"),
        (["--no-train", "--seeds", "0,one"], "--seeds takes whole numbers with commas between"),
        (["--no-train", "--seeds", "0,0"], "seeds must differ"),
        (["--no-train", "--seeds", "-1"], "seeds must be a list of whole numbers from 0"),
        (["--no-train", "--jobs", "0"], "Invalid value for '--jobs'"),
        (["--no-train", "--rows", "nowhere.csv"], "no such file: nowhere.csv"),
        (["--data-dir", "nowhere"], "no data folder nowhere"),
        (["--no-train", "--nonsense"], "No such option: --nonsense"),
    ],
)
def test_a_wrong_argument_is_one_line(fails, study, out, args, message):
    assert message in fails("ablate", study, "--out", out, *args)
    assert not out.exists()


def test_a_missing_study_and_an_unknown_net_are_named(fails, tmp_path, out):
    assert "no such file: " in fails("ablate", tmp_path / "none.yaml", "--no-train", "--out", out)
    study = write_study(tmp_path, variants={"a": {}, "b": {"model": "resnet21_cifar"}})
    assert "unknown model 'resnet21_cifar'; did you mean" in fails("ablate", study, "--no-train", "--out", out)
