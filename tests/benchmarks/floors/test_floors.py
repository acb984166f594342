"""The committed floors are those of the kernels as they are, and cover all of them; the launches are those counted."""

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from math import prod
from pathlib import Path

import pytest

from benchmarks.floors import rows as floors
from benchmarks.floors.rows import FLOORS, LAUNCHES, FloorRow, LaunchRow
from benchmarks.render import KERNELS, render_kernels
from seattn.core.records import read_rows

pytest.importorskip("triton", reason="needs triton")
import torch
import triton

from benchmarks.floors import __main__ as command
from tests.kernels._compile_entries import ENTRIES

ROOT = Path(__file__).parents[3]
ROWS, BLOCKS = read_rows(FloorRow, FLOORS), read_rows(LaunchRow, LAUNCHES)
REMAKE = "kernels or nets have changed: make floors"


def now(scope):
    """See `_now`: rows made in a process of its own, because TRITON_INTERPRET, once read, cannot be unset here."""
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    command = [sys.executable, str(Path(__file__).with_name("_now.py")), scope]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_committed_floors_are_those_of_the_kernels():
    """Of one shape the launches of every op, and of one op what its compiled code takes."""
    made = now("cheap")
    shown = [row for row in ROWS if (row.shape, row.memory_format) == ("1024x512x4x4", "channels_last")]
    columns = ("case", "mode", "kernel", "tile", "programs", "bytes_moved")
    committed = [[getattr(row, c) for c in columns] for row in shown if row.device == "H200"]
    assert made["launches"] == committed, REMAKE
    gradients = ["mm", "sum", "mm", "sum"]  # of the weights of squeeze-excite, as small matrix products
    wanted = {"se_tail forward": [], "se_tail backward": gradients, "bn_se_tail inference": []}
    assert {name: made["operators"][name] for name in wanted} == wanted
    assert len(made["rows"]) == 4
    for row in made["rows"]:
        same = next(r for r in shown if (r.device, r.case, r.mode) == (row["device"], row["case"], row["mode"]))
        assert row["stack"] == 0
        if row["triton"] == same.triton:  # another version compiles to other registers
            assert row == asdict(same), REMAKE


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_all_committed_rows_are_those_of_the_kernels_and_of_torch():
    if (ROWS[0].triton, BLOCKS[0].torch) != (triton.__version__, torch.__version__):
        pytest.skip(f"the rows are of Triton {ROWS[0].triton} and torch {BLOCKS[0].torch}")
    made = now("all")
    assert made["rows"] == [asdict(row) for row in ROWS], REMAKE
    assert made["blocks"] == [asdict(row) for row in BLOCKS], REMAKE


def test_every_kernel_and_every_row_of_its_table_has_floors_on_every_device():
    made = {(row.device, row.kernel, row.tile, row.memory_format) for row in ROWS}
    for device in {row.device for row in ROWS}:
        for entry in ENTRIES:
            for row in entry.rows:
                blocks = {k.removeprefix("BLOCK_"): v for k, v in row.constants.items() if k.startswith("BLOCK_")}
                last = row.constants.get("CHANNELS_LAST", True)
                found = [
                    tile
                    for d, kernel, tile, memory_format in made
                    if (d, kernel) == (device, entry.kernel.fn.__name__)
                    and memory_format == ("channels_last" if last else "contiguous")
                    and blocks.items() <= {key: int(n) for key, n in re.findall(r"([A-Z])(\d+)", tile)}.items()
                ]
                assert found, f"{entry.kernel.fn.__name__} {row.name} on {device}: {REMAKE}"


# Where R is no multiple of 16; test_compile_ahead.py compiles for such multiples. kernels/README.md says so too.
SPILLS = {
    (device, "sample_bwd_kernel", tile, "contiguous")
    for device in ("H100", "H200")
    for tile in ("C4 P1024 R16", "C16 P256 R16")
}


def test_no_kernel_spills_but_those_that_are_named():
    spilling = [row for row in ROWS if row.stack]
    assert {(row.device, row.kernel, row.tile, row.memory_format) for row in spilling} == SPILLS
    assert max(row.stack for row in spilling) == 24


@pytest.mark.parametrize(
    ("case", "forward", "backward"),
    [
        ("se", 3, 4),
        ("se_tail", 4, 6),
        ("eca_tail", 4, 6),
        ("plain_tail", 4, 7),
        ("bn_se_tail", 4, 7),
        ("bn_eca_tail", 4, 7),
        ("cbam_channel", 3, 5),
        ("cbam_spatial", 3, 5),
        ("channel_gate", 2, 3),
    ],
)
def test_bytes_are_the_passes_that_the_interpreter_counts(case, forward, backward):
    """The passes of kernels/README.md, counted in tests/kernels/test_passes_counted.py; small arrays are the rest."""
    for mode, passes in (("forward", forward), ("backward", backward)):
        own = [row for row in ROWS if (row.case, row.mode, row.shape, row.device) == (case, mode, floors.SHOWN, "H200")]
        size = 2 * prod(int(side) for side in floors.SHOWN.split("x"))
        moved = sum(row.bytes_moved for row in own) / size
        assert passes <= moved < passes + 0.1
        assert sum(row.memory_us for row in own) == pytest.approx(moved * size / 4.8e12 * 1e6, rel=1e-3)


def test_our_launches_are_those_that_the_launchers_make():
    """The Triton launches of an op are those that test_passes_counted.py counts where the launchers really run."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("counts in Triton's interpreter")
    from tests.kernels.test_passes_counted import OPS

    names = {"se-in-passes": "se", "se-tail-in-passes": "se_tail", "bn-tail": "plain_tail"}
    names |= {name: name.replace("-", "_") for name in ("eca-tail", "bn-se-tail", "bn-eca-tail")}
    for op, case in names.items():
        for mode, launches in zip(("forward", "backward"), OPS[op].launches, strict=True):
            own = [
                row for row in ROWS if (row.case, row.mode, row.shape, row.device) == (case, mode, floors.SHOWN, "H200")
            ]
            assert len(own) == launches, (op, mode)
    for block, op in {"plain": "bn-tail", "se": "bn-se-tail", "eca": "bn-eca-tail"}.items():
        ours = {row.mode: row.kernels for row in BLOCKS if (row.block, row.implementation) == (block, "seattn")}
        assert (ours["forward"], ours["backward"]) == OPS[op].launches
        assert ours["inference"] == {"plain": 1, "se": 1, "eca": 3}[block]


def test_committed_tables_are_the_rendered_ones():
    text = KERNELS.read_text(encoding="utf-8")
    assert render_kernels(text) == text, "kernels/README.md differs from the rows: make cards"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["now"], "unrecognized arguments: now"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["--out"], "argument --out: expected one argument"),
        (["--out", __file__], "test_floors.py: it is not a folder"),
        (["--out", f"{__file__}/below"], "cannot write to "),
        (["--out", "/proc/floors"], "cannot write to /proc/floors"),
    ],
    ids=["argument", "option", "no folder", "file", "below a file", "read-only"],
)
def test_wrong_arguments_are_named(command_fails, arguments, message):
    assert message in command_fails(command, *arguments)


def test_the_interpreter_is_refused_and_nothing_is_written(command_fails, tmp_path, monkeypatch):
    monkeypatch.setattr("seattn.ops._kernel.INTERPRETED", True)
    assert "TRITON_INTERPRET is set" in command_fails(command, "--out", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
