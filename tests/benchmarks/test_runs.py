"""The benches run: timm's twins, both sides of every op, every bench end to end on tiny sizes, and make gpu."""

import sys

import pytest
import timm
import torch
from torch import nn

import seattn
from benchmarks import gpu, run
from benchmarks.small_step import small_step
from benchmarks.speed import blocks as bench_blocks
from benchmarks.speed import data as bench_data
from benchmarks.speed import dispatch as bench_dispatch
from benchmarks.speed import models as bench_models
from benchmarks.speed import ops as bench_ops
from benchmarks.speed.rows import DataRow, SpeedRow
from benchmarks.speed.timing import Case, Plan
from benchmarks.speed.twins import check_equal, timm_twin
from seattn import ops
from seattn.core.records import read_rows


@pytest.mark.parametrize("name", ["se_resnet20_cifar", "eca_resnet18_cifar"])
def test_twin_is_of_timm_alone_with_equal_outputs(name):
    model = timm.create_model(name, zero_init_last=False)
    twin = timm_twin(model)
    assert {type(m).__module__ for n, m in twin.named_modules() if n} <= {
        *(m for m in sys.modules if m.startswith(("timm.", "torch.nn.")))
    }
    check_equal(model, twin, torch.randn(2, 3, 32, 32))
    assert any(type(m).__module__.startswith("seattn") for n, m in model.named_modules() if n)


def test_unequal_twin_and_a_layer_that_timm_has_not_are_refused():
    model = timm.create_model("se_resnet20_cifar", zero_init_last=False)
    twin = timm_twin(model)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        twin.layer3[2].se.fc2.bias += 1
    with pytest.raises(AssertionError, match=r"layer3\.2\.se\.fc2\.bias differs"):
        check_equal(model, twin, x)
    twin = timm_twin(model)
    twin.layer3[2].act2 = nn.GELU()
    with pytest.raises(AssertionError):
        check_equal(model, twin, x)
    with pytest.raises(ValueError, match=r"layer1\.0\.se"):
        timm_twin(timm.create_model("cbam_resnet20_cifar"))


def test_accelerated_net_is_compared_with_the_untouched_one():
    ours, theirs = bench_models._accelerated("seresnet18")
    assert seattn.acceleration_report(seattn.accelerate(theirs, verbose=False)).replaced
    seattn.restore(theirs)
    check_equal(ours, theirs, torch.randn(2, 3, 64, 64))


def test_every_op_agrees_with_its_reference_in_the_step_for_the_sanitizer(one_thread):
    assert small_step(torch.device("cpu")) == len(bench_ops.OPS) * 2 * 2 * 2


@pytest.mark.parametrize("name", bench_ops.OPS)
def test_both_sides_of_an_op_compute_the_same(name):
    op = bench_ops.OPS[name]
    x, shortcut = torch.randn(2, 3, 16, 5, 5)
    pair = op.make(16, x)
    ours, theirs = (torch.autograd.grad(f(x, shortcut).sum(), pair.parameters) for f in (pair.ours, pair.timm))
    torch.testing.assert_close(pair.ours(x, shortcut), pair.timm(x, shortcut))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_every_public_op_has_its_cost_of_dispatch_measured(monkeypatch):
    called = set()
    public = [name for name in ops.__all__ if not name.endswith(("_reference", "_kernels"))]
    for name in public:
        function = getattr(ops, name)
        spy = lambda *args, name=name, function=function, **kwargs: called.add(name) or function(*args, **kwargs)  # noqa: E731
        monkeypatch.setattr(ops, name, spy)
    x, shortcut = torch.randn(2, *bench_dispatch.SHAPE)
    for op in bench_dispatch.ALL.values():
        pair = op.make(x.shape[1], x)
        torch.testing.assert_close(pair.ours(x, shortcut), pair.timm(x, shortcut))
    assert called == set(public)


@pytest.mark.parametrize("bench", [bench_ops, bench_blocks, bench_models], ids=["ops", "blocks", "models"])
def test_a_bench_runs_through_and_writes_whole_groups(bench, tmp_path, monkeypatch, capsys, one_thread):
    monkeypatch.setattr(bench_ops, "QUICK_SHAPES", bench_ops.QUICK_SHAPES[:1])
    monkeypatch.setattr(bench_blocks, "QUICK", bench_blocks.QUICK[:1])
    name = bench.__name__.removeprefix("benchmarks.speed.")
    out = tmp_path / "rows.csv"
    assert run.main(["--quick", "--only", name, "--out", str(out)]) == 0
    rows = read_rows(SpeedRow, out)
    cases = list(bench.cases(Plan(torch.device("cuda" if torch.cuda.is_available() else "cpu"), quick=True)))
    groups = {r.group for r in rows if not r.cuda_graph}
    modes = [(c, c.mode) for c in cases] + [(c, "inference_folded") for c in cases if c.mode == "inference"]
    assert groups == {(c.what, c.case, mode, c.size, c.dtype, c.memory_format, False) for c, mode in modes}
    for key in groups:
        implementations = [r.implementation for r in rows if r.group == key]
        assert implementations[:2] == ["seattn", "timm_eager"]
    assert all(r.n == 2 and r.p20 <= r.median <= r.p80 for r in rows)
    assert all(r.ratio == 1 for r in rows if r.implementation == "seattn")
    assert f"{len(rows)} rows appended to {out}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "make"), sorted({(n.name, n.make) for n in bench_models.CPU + bench_models.GPU}, key=lambda n: n[0])
)
def test_every_net_can_be_made_and_is_timms(name, make):
    ours, theirs = make(name)
    side = 32 if name.endswith("cifar") else 64
    check_equal(ours, theirs, torch.randn(2, 3, side, side))


def test_cases_and_modes_are_chosen_by_name(capsys):
    chosen = ["--case", "se_basic", "--case", "basic", "--mode", "forward"]
    assert run.main(["--quick", "--only", "blocks", *chosen, "--minutes", "0"]) == 0
    lines = [line.split(": ")[1] for line in capsys.readouterr().out.splitlines() if line.startswith("left out")]
    assert {tuple(line.split()[:2]) for line in lines} == {("se_basic", "forward"), ("basic", "forward")}


def test_cases_beyond_the_minutes_are_named_and_left_out(capsys):
    assert run.main(["--quick", "--only", "blocks", "--minutes", "0"]) == 0
    out = capsys.readouterr().out
    assert "left out, the minutes are over: se_basic forward 2x16x8x8" in out
    assert "0 rows were not written" in out


def test_both_under_compile_are_timed_where_asked_for():
    plan = Plan(torch.device("cpu"), compiled=True, quick=True)
    case = next(bench_ops.cases(plan))
    assert list(case.make(plan, case)) == ["seattn", "timm_eager", "timm_compile", "seattn_compile"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_make_gpu_refuses_a_machine_without_cuda_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GPU_OUT", str(tmp_path / "out"))
    assert gpu.main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "no CUDA device" in err
    assert not (tmp_path / "out").exists()


def test_a_rehearsal_of_make_gpu_runs_each_step_and_names_the_cases(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GPU_OUT", str(tmp_path / "out"))
    started = []
    monkeypatch.setattr(gpu, "run_logged", lambda command, log, seconds: started.append((log.name, command)) or 0)
    assert gpu.main(["--dry"]) == 0
    assert [name for name, _ in started] == ["tests.log", "sanitizer.log", "benchmark.log"]
    assert "TRITON_INTERPRET=1" in started[1][1]
    cases = (tmp_path / "out" / "cases.txt").read_text().splitlines()
    assert cases[0].startswith("se_tail forward ")
    assert "se_resnet18_cifar training_step 1024x3x32x32 autocast_bfloat16 channels_last" in cases
    assert "gpu: benchmark: passed" in capsys.readouterr().out


def test_make_gpu_logs_a_command_and_ends_it_in_time(tmp_path, capfd):
    log = tmp_path / "log"
    assert gpu.run_logged([sys.executable, "-c", "print('done'); raise SystemExit(3)"], log, 60) == 3
    assert log.read_text() == "done\n"
    assert gpu.run_logged([sys.executable, "-c", "import time; time.sleep(60)"], log, 0.5) == 124
    assert "ended after" in log.read_text()


def test_a_case_that_fails_is_named_and_the_others_run(tmp_path, monkeypatch, capsys):
    def cases(plan):
        for name in ("good", "bad", "better"):
            yield Case(
                "op", name, "forward", (1, 2, 3, 3), "float32", "contiguous", lambda plan, case: works(case.case)
            )

    def works(name):
        return {"seattn": refuse if name == "bad" else int, "timm_eager": int, "timm_compile": refuse}

    def refuse():
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(run, "BENCHES", {"ops": cases})
    assert run.main(["--quick", "--out", str(tmp_path / "rows.csv")]) == 1
    rows = read_rows(SpeedRow, tmp_path / "rows.csv")
    assert [(r.case, r.implementation) for r in rows] == [
        (case, name) for case in ("good", "better") for name in ("seattn", "timm_eager")
    ]
    out = capsys.readouterr().out
    assert "FAILED: bad forward 1x2x3x3 float32 contiguous: RuntimeError: no such kernel" in out
    assert "good forward 1x2x3x3 float32 contiguous: timm_compile is left out: RuntimeError" in out


def test_data_bench_leaves_a_row_for_every_case(tmp_path, one_thread, monkeypatch, capsys):
    monkeypatch.setattr(bench_data, "WARM_UP", 1)
    out = tmp_path / "data-here.csv"
    assert bench_data.main(["--quick", "--out", str(out)]) == 0
    rows = read_rows(DataRow, out)
    assert [(row.path, row.case, row.workers) for row in rows] == [
        (case.path, case.name, case.workers) for case in bench_data.CASES
    ]
    assert {row.source for row in rows} == {"PNG 32x32", "JPEG 160x160"}
    assert all(0 < row.p20 <= row.median <= row.p80 for row in rows)
    assert bench_data.main(["--quick", "--data-dir", str(tmp_path / "nowhere")]) == 2
    assert "no data folder" in capsys.readouterr().err
