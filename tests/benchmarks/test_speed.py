"""The benchmarks: pairs and medians of the timer, rows that read back, what is rendered from them, and every bench."""

import dataclasses
import itertools
from collections import Counter
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from benchmarks import plots, render, run
from benchmarks.speed import bars
from benchmarks.speed.models import _bare
from benchmarks.speed.rows import SpeedRow, device_slug, newest, speed_files
from benchmarks.speed.tables import group_line, render_speed, render_steps
from benchmarks.speed.timing import Case, Plan, copy_bandwidth, cpu_clock, interleave, ratios, spread
from seattn.core.records import append_rows, read_rows
from tests.helpers.speed_rows import ROW, WHERE

ROOT = Path(__file__).parents[2]


def row(**changes):
    return dataclasses.replace(ROW, **changes)


def group(*, timm=2.0, seattn=0.002, **changes):
    return [
        row(implementation="seattn", median=seattn, ratio=1.0, ratio_p20=1.0, ratio_p80=1.0, **changes),
        row(ratio=timm, median=timm * seattn, **changes),
    ]


def test_timer_runs_every_work_once_a_round_in_turning_order():
    calls = []
    works = {name: (lambda name=name: calls.append(name)) for name in "abc"}

    def clock(work):
        work()
        return {"a": 1.0, "b": 2.0, "c": 3.0}[calls[-1]] + len(calls)

    times = interleave(works, clock, rounds=3, seconds=0, warm_up=1)
    assert "".join(calls) == "abc" + "abc" + "cba" + "abc"
    # A machine that slows down all the time: the clock adds the number of calls so far.
    assert times == {"a": [5.0, 10.0, 11.0], "b": [7.0, 10.0, 13.0], "c": [9.0, 10.0, 15.0]}


def test_timer_goes_on_until_the_time_is_over():
    times = interleave({"a": lambda: None}, cpu_clock, rounds=2, seconds=0.02)
    assert 2 < len(times["a"]) <= 1000


def test_spread_is_median_and_quintiles_and_ratios_are_of_pairs():
    assert dataclasses.astuple(spread([5.0, 1.0, 2.0, 4.0, 3.0, 6.0])) == (3.5, 2.0, 5.0)
    # Every round has 3 to 1, though the medians of 3, 30, 60 and of 1, 10, 20 would agree with other pairs as well.
    assert dataclasses.astuple(ratios([3.0, 60.0, 30.0], [1.0, 20.0, 10.0])) == (3.0, 3.0, 3.0)
    assert ratios([2.0, 2.0, 8.0], [1.0, 2.0, 2.0]).median == 2.0
    with pytest.raises(ValueError, match="zip"):
        ratios([1.0, 2.0], [1.0])


def test_copy_bandwidth_counts_bytes_read_and_written():
    assert copy_bandwidth(torch.device("cpu"), lambda work: 0.5, size=1000, rounds=3) == 4000.0


@pytest.mark.parametrize("changes", [{}, {"bytes_moved": None, "copy_percent": None}, {"cuda_graph": True}])
def test_rows_read_back_equal_and_are_appended(tmp_path, changes):
    path = tmp_path / "results" / "a.csv"
    append_rows(SpeedRow, path, [row(**changes)])
    append_rows(SpeedRow, path, [row(n=3), row(shape="1x1x1x1")])
    rows = read_rows(SpeedRow, path)
    assert rows == [row(**changes), row(n=3), row(shape="1x1x1x1")]
    assert type(rows[0].cuda_graph) is bool


def test_rows_are_not_appended_to_a_file_of_another_kind(tmp_path, capsys):
    path = tmp_path / "accuracy.csv"
    path.write_text("name,dataset\n")
    assert run.main(["--quick", "--only", "ops", "--out", str(path)]) == 2
    assert f"{path} has other columns than SpeedRow" in capsys.readouterr().err
    assert path.read_text() == "name,dataset\n"


def test_newest_rows_replace_a_group_as_a_whole():
    later = dataclasses.replace(WHERE, commit="def5678")
    old = [*group(), row(implementation="timm_compile")]
    new = group(timm=3.0, conditions=later)
    elsewhere = group(shape="128x16x32x32")
    assert newest([*old, *elsewhere, *new]) == [*elsewhere, *new]


def test_device_has_a_name_for_its_file():
    assert device_slug(torch.device("cpu"), WHERE) == "cpu-a-processor-2t"
    where = dataclasses.replace(WHERE, hardware="NVIDIA H200")
    assert device_slug(torch.device("cuda"), where) == "nvidia-h200"


def test_bars_take_their_rows_and_say_when_they_are_missed():
    slow = row(shape="128x64x8x8", ratio=0.9)
    others = [row(dtype="bfloat16", ratio=0.1), row(mode="forward", ratio=0.1), row(mode="inference_folded", ratio=0.1)]
    found = bars.reached([row(ratio=3.9), slow, *others], bars.CPU_BARS)
    assert [(r.n, round(r.value, 2), r.holds) for r in found] == [(2, 1.87, True), (2, 0.9, False)]
    gpu_rows = {"dtype": "bfloat16", "cuda_graph": True, "implementation": "seattn"}
    large = row(case="bn_se_tail", shape="1024x64x32x32", copy_percent=76.0, **gpu_rows)
    small = row(case="bn_se_tail", shape="1024x512x4x4", copy_percent=30.0, **gpu_rows)
    (reached,) = bars.reached([large, small], bars.GPU_BARS)
    assert (reached.n, reached.value, reached.holds) == (1, 76.0, True)


def test_every_bar_has_cases_that_are_run(monkeypatch):
    monkeypatch.setattr("benchmarks.speed.models.cpu_has_bfloat16", lambda: True)  # without it, two bars have no case
    for chosen, kind in ((bars.CPU_BARS, "cpu"), (bars.GPU_BARS, "cuda")):
        plan = Plan(torch.device(kind), compiled=True)
        cases = [case for name in run.BENCHES for case in run.BENCHES[name](plan)]
        for bar in chosen:
            taken = [case for case in cases if any(bar.takes(as_row) for as_row in _possible_rows(case))]
            assert taken, bar.text
            assert any(case.urgent for case in taken), bar.text


def _possible_rows(case: Case):
    implementations = ("seattn", "timm_eager", "timm_compile", "plain", "plain_timm_eager", "convolutions")
    suffixes = ("", "_folded", "_compiled") if case.what == "model" else ("",)
    for implementation, suffix, cuda_graph in itertools.product(implementations, suffixes, (False, True)):
        yield row(
            **{key: getattr(case, key) for key in ("what", "case", "dtype", "memory_format")},
            mode=case.mode + suffix,
            shape=case.size,
            implementation=implementation,
            cuda_graph=cuda_graph,
        )


@pytest.mark.parametrize(("what", "names"), [("ops", ("se_tail", "bn_se_tail")), ("blocks", ("se_basic", "basic"))])
def test_with_compile_both_sides_are_compiled_too(what, names):
    plan = Plan(torch.device("cpu"), compiled=True, quick=True)
    cases = {
        case.case: case
        for case in run.BENCHES[what](plan)
        if (case.mode, case.dtype, case.memory_format) == ("forward_backward", "float32", "channels_last")
    }
    for name in names:
        works = cases[name].make(plan, cases[name])
        assert {"seattn", "timm_eager", "seattn_compile", "timm_compile"} == set(works)
    assert "seattn_compile" not in cases[names[0]].make(dataclasses.replace(plan, compiled=False), cases[names[0]])


def test_group_line_names_the_time_and_the_others():
    assert group_line(group()) == (
        "se_tail forward_backward 32x64x32x32 float32 NCHW: 2 ms (84 % of copy); timm_eager 2.00 ×"
    ).replace("NCHW", "channels_last")


def test_table_of_a_cpu_has_geometric_means_and_conditions():
    step = {"what": "model", "case": "se_resnet20_cifar", "mode": "training_step", "shape": "128x3x32x32"}
    rows = [
        *group(timm=4.0),
        *group(timm=1.0, shape="128x16x32x32"),
        *group(timm=1.5, memory_format="contiguous"),
        *group(timm=1.2, bytes_moved=None, copy_percent=None, **step),
    ]
    table = render_speed(rows, on_gpu=False, headlines=False)
    assert "| SE + add + ReLU, forward + backward | fp32 | 2.00 × (1.00 to 4.00) | 1.50 × (2.25 to 2.75) |" in table
    assert "| `se_resnet20_cifar`, 128 images, training step | fp32 | 1.20 × (2.25 to 2.75) |  |" in table
    for fact in ("a processor, 2 threads", "torch 2.15.0", "timm 1.0.31", "`abc1234` of 2026-01-02"):
        assert fact in table
    assert render_speed([], on_gpu=False, headlines=True) == ""


def test_table_has_a_line_for_each_batch_of_a_net_and_names_each_commit_once():
    net = {
        "what": "model",
        "case": "se_resnet20_cifar",
        "mode": "inference_folded",
        "bytes_moved": None,
        "copy_percent": None,
    }
    later = dataclasses.replace(WHERE, commit="def5678")
    many = group(timm=1.2, shape="128x3x32x32", **net)
    one = [dataclasses.replace(r, conditions=later) for r in group(timm=0.9, shape="1x3x32x32", **net)]
    lines = render_speed([*one, *many], on_gpu=False, headlines=True).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:4]] == [
        "| `se_resnet20_cifar`, 128 images, inference, folded",
        "| `se_resnet20_cifar`, 1 image, inference, folded",
    ]
    assert "1.20 ×" in lines[2]
    assert "0.90 ×" in lines[3]
    left = [
        {**net, "shape": "1x3x32x32", "mode": "inference"},
        {**net, "shape": "8x3x32x32", "mode": "inference_compiled"},
    ]
    assert [render_speed(group(**other), on_gpu=False, headlines=True) for other in left] == [
        "",
        "",
    ]  # on the page only
    assert lines[-1].endswith("seattn at `abc1234`, `def5678` of 2026-01-02.")


def test_table_of_steps_has_the_plain_nets_beside_them():
    step = {"what": "model", "case": "se_resnet18_cifar", "mode": "training_step", "shape": "32x3x32x32"}
    rows = [
        *group(timm=1.04, **step),
        row(implementation="plain", ratio=0.96, **step),
        row(implementation="plain_timm_eager", ratio=0.92, **step),
        row(implementation="convolutions", ratio=0.857, **step),
        *group(timm=3.0, **step | {"case": "resnet18_cifar"}),  # has no plain net beside it
    ]
    head, _, line = render_steps(rows).splitlines()
    assert head.endswith("| timm's | no attention, our tails | no attention, timm's | convolutions alone |")
    assert line == "| `se_resnet18_cifar`, 32 images | fp32 | channels_last | 1.04 | 0.96 | 0.92 | 0.86 |"
    assert render_steps(rows[:2]) == ""


def test_a_bare_net_keeps_its_convolutions_and_learns():
    net = timm.create_model("resnet20_cifar").train()
    bare = _bare(net)
    kinds = Counter(type(module) for module in bare.modules())
    assert kinds[nn.Conv2d] == sum(isinstance(module, nn.Conv2d) for module in net.modules()) == 21
    assert kinds[nn.BatchNorm2d] == kinds[nn.ReLU] == 0
    bare(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in bare.parameters())


def test_table_of_a_gpu_has_graphs_compile_and_bandwidth():
    rows = [
        *group(timm=2.5, dtype="bfloat16"),
        *group(timm=2.0, dtype="bfloat16", cuda_graph=True, copy_percent=88.0),
        row(dtype="bfloat16", implementation="timm_compile", ratio=1.3),
    ]
    table = render_speed(rows, on_gpu=True, headlines=False)
    assert "| a processor | dtype |" in table
    assert "| bf16 | 2.50 × (2.25 to 2.75) | 2.00 × (2.25 to 2.75) | 1.30 × (2.25 to 2.75) | 88 to 88 |" in table


def test_readme_has_the_speed_of_the_devices_that_have_rows_and_of_no_other(tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    monkeypatch.setattr(render, "speed_files", lambda: speed_files(tmp_path))
    (tmp_path / "accuracy.csv").write_text("not of speed\n")
    before, rest = render.render_readme(text).split("<!-- speed: rendered by make cards -->\n")
    assert rest.startswith("<!-- end of speed -->")
    append_rows(SpeedRow, tmp_path / "nvidia-h200.csv", group(dtype="bfloat16", timm=7.0))
    append_rows(SpeedRow, tmp_path / "cpu-a-processor-2t.csv", group(timm=3.0))
    rendered = render.render_readme(text)
    assert rendered.startswith(before)
    assert rendered.index("3.00 ×") < rendered.index("7.00 ×")
    assert render.render_readme(rendered) == rendered


def test_readme_has_the_cpu_that_was_measured_last_and_the_page_of_results_all(tmp_path, monkeypatch):
    monkeypatch.setattr(render, "speed_files", lambda: speed_files(tmp_path))
    for name, ratio, date in (("a", 5.0, "2026-11-22"), ("b", 3.0, "2026-11-21")):
        where = dataclasses.replace(WHERE, date=date)
        rows = [dataclasses.replace(r, conditions=where) for r in group(timm=ratio)]
        append_rows(SpeedRow, tmp_path / f"cpu-{name}-2t.csv", rows)
    readme, page = render.render_tables(headlines=True), render.render_tables(headlines=False)
    assert [text in readme for text in ("5.00 ×", "3.00 ×")] == [True, False]
    assert [text in page for text in ("5.00 ×", "3.00 ×")] == [True, True]


def test_committed_speed_rows_are_of_clean_commits():
    for path in speed_files():
        for measured in read_rows(SpeedRow, path):
            assert measured.conditions.commit, path
            assert not measured.conditions.commit.endswith("+"), path
            assert measured.n >= 5, path


def test_plots_are_written_from_rows_and_the_same_again(tmp_path, capsys):
    path = tmp_path / "cpu-a-processor-2t.csv"
    append_rows(
        SpeedRow, path, [*group(), *group(shape="128x64x8x8"), *group(mode="forward", bytes_moved=3 * 8_388_608)]
    )
    assert plots.main([str(path)]) == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [p.name for p in written] == [f"{path.stem}.forward.svg", f"{path.stem}.forward_backward.svg"]
    first = [p.read_bytes() for p in written]
    assert all(b"<svg" in svg for svg in first)
    assert plots.main([str(path)]) == 0
    assert [p.read_bytes() for p in written] == first


def test_plots_show_every_point_and_the_bandwidth_itself():
    rows = [*group(copy_percent=20.0), *group(seattn=0.0002, case="bn_se_tail")]
    for mode in plots.MODES:
        figure = plots.draw([dataclasses.replace(r, mode=mode) for r in rows], mode)
        figure.draw_without_rendering()
        below = figure.axes[2:]  # two panels of times, two of bandwidths
        assert max(y for axes in below for line in axes.lines for y in line.get_ydata()) > 300
        for axes in figure.axes:
            low, high = axes.get_ylim()
            assert all(low <= y <= high for line in axes.lines for y in line.get_ydata())
        assert all(axes.get_ylim()[1] >= 100 for axes in below)


def test_settling_runs_each_work_once_more_before_it_is_timed():
    calls: list[str] = []
    works = {name: lambda name=name: calls.append(name) for name in ("a", "b")}
    interleave(works, cpu_clock, rounds=2, seconds=0, warm_up=0, settle=True)
    assert calls == ["a", "a", "b", "b", "b", "b", "a", "a"]


def test_rows_of_data_rates_are_no_speed_rows(tmp_path):
    for name in ("cpu-a-2t.csv", "data-cpu-a-2t.csv", "accuracy.csv"):
        (tmp_path / name).write_text("")
    assert [path.name for path in speed_files(tmp_path)] == ["cpu-a-2t.csv"]
