"""Squeeze-excite as Hugging Face's package `kernels` loads it: alone, twice in one process, and beside seattn."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from kernels._rust import Digest, DigestAlgorithm, Metadata

from kernels import get_local_kernel
from seattn import ops
from tests.kernels._hub_kernel import ROOT, STAGE, contents, stage, staged

ALONE = Path(__file__).with_name("_hub_kernel_alone.py")
# RMS over RMS: y and dx, then the gradients of the weights; as in tests/ops/_tail_cases.py.
TOLERANCES = {"fp32": (5e-6, 1e-5), "fp16": (5e-4, 1e-5), "bf16": (5e-3, 1e-5)}
COMMIT = "0" * 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return staged(tmp_path_factory.mktemp("hub") / "kernel")


@pytest.fixture(scope="module")
def alone(folder, tmp_path_factory):
    """What a process reports that can import neither seattn nor timm."""
    cache = tmp_path_factory.mktemp("cache")
    repository = cache / "kernels--seattn--seattn-squeeze-excite"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "v0").write_text(COMMIT)
    shutil.copytree(folder / "build", repository / "snapshots" / COMMIT / "build")
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "SEATTN_KERNELS")}
    environment |= {"TRITON_INTERPRET": "1", "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache)}
    command = [sys.executable, str(ALONE), str(folder)]
    done = subprocess.run(command, cwd=cache, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_loads_without_seattn_and_timm(alone):
    assert alone["names"] == ["get_kernels", "layers", "set_kernels", "squeeze_excite", "squeeze_excite_reference"]
    assert alone["kernels"] == "auto"
    assert alone["modules"] == [alone["id"]]  # nothing was imported under a name that another kernel could have


def test_get_kernel_finds_it_in_the_hubs_cache(alone):
    assert f"snapshots/{COMMIT}/build/torch-" in alone["hub"]["file"]
    assert alone["hub"]["same"]


@pytest.mark.parametrize("kernels", ["torch", "triton", "reference"])
def test_values_and_every_gradient_equal_the_definition_in_float64(alone, kernels):
    cases = {name: errors for name, errors in alone["errors"].items() if name.startswith(kernels)}
    assert len(cases) == {"torch": 11, "triton": 11, "reference": 1}[kernels]
    for name, errors in cases.items():
        assert set(errors) == {"y", "dx", "dw1", "db1", "dw2", "db2"}
        of_maps, of_weights = next(limits for dtype, limits in TOLERANCES.items() if dtype in name)
        for what, error in errors.items():
            assert error <= (of_maps if what in ("y", "dx") else of_weights), f"{name} {what}"


def test_two_versions_and_seattn_live_in_one_process(folder, tmp_path):
    first, second = get_local_kernel(folder), get_local_kernel(staged(tmp_path / "other", "--version", "7"))
    x, *weights = [torch.randn(s, requires_grad=True) for s in ((2, 8, 5, 3), (4, 8), (4,), (8, 4), (8,))]
    with first.set_kernels("triton"), second.set_kernels("reference"):  # a choice is of one build
        assert (first.get_kernels(), second.get_kernels(), ops.get_kernels()) == ("triton", "reference", "auto")
        results = []
        for op in (first.squeeze_excite, second.squeeze_excite, ops.squeeze_excite):
            y = op(x, *weights)
            results.append([y, *torch.autograd.grad(y.square().sum(), [x, *weights])])
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-5, atol=1e-5)
    namespaces = [first.__name__, second.__name__, "seattn"]
    operators = [getattr(torch.ops, name).attn_tail_fwd.default for name in namespaces]
    assert [op.namespace for op in operators] == namespaces
    assert len(set(namespaces)) == 3


@pytest.mark.parametrize("kernels", ["auto", "triton"])
def test_torch_compile_takes_it_whole(folder, kernels):
    kernel = get_local_kernel(folder)
    inputs = [torch.randn(s, requires_grad=True) for s in ((2, 8, 5, 3), (4, 8), (4,), (8, 4), (8,))]
    compiled = torch.compile(kernel.squeeze_excite, fullgraph=True, backend="aot_eager")
    with kernel.set_kernels(kernels):
        results = []
        for op in (compiled, kernel.squeeze_excite):
            y = op(*inputs)
            results.append([y, *torch.autograd.grad(y.square().sum(), inputs)])
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-5)


def test_asking_for_a_kernel_that_cannot_run_raises(folder):
    kernel = get_local_kernel(folder)
    with kernel.set_kernels("triton"), pytest.raises(RuntimeError, match="takes float32, float16 and bfloat16"):
        kernel.squeeze_excite(torch.ones(1, 2, 3, 3).double(), torch.ones(1, 2), None, torch.ones(2, 1), None)


@pytest.mark.parametrize("backend", [None, "cpu"])
def test_the_variant_of_the_backend_is_chosen(folder, backend):
    chosen = Path(get_local_kernel(folder, backend=backend).__file__).parent.name
    here = "rocm" if torch.version.hip else "cuda" if torch.version.cuda else "cpu"
    assert chosen == f"torch-{backend or here}"


def test_the_universal_variant_serves_where_no_other_fits(folder, tmp_path):
    shutil.copytree(folder / "build" / "torch-universal", tmp_path / "build" / "torch-universal")
    kernel = get_local_kernel(tmp_path)
    assert Path(kernel.__file__).parent.name == "torch-universal"
    y = kernel.squeeze_excite(torch.ones(1, 2, 3, 3), torch.zeros(1, 2), None, torch.zeros(2, 1), None)
    assert torch.equal(y, torch.full((1, 2, 3, 3), 0.5))


@pytest.mark.parametrize("variant", ["torch-cpu", "torch-cuda", "torch-rocm", "torch-universal"])
def test_metadata_and_digest_are_what_the_package_reads(folder, variant):
    metadata = Metadata.read_from_file(folder / "build" / variant / "metadata.json")
    assert metadata.name.python_name == "seattn_squeeze_excite"
    assert metadata.version == 0
    assert metadata.id.isidentifier()
    metadata.digest.validate(Digest.hash_variant(DigestAlgorithm.SHA256, folder / "build" / variant))
    assert (folder / "build" / variant / "seattn_squeeze_excite" / "__init__.py").is_file()


def test_imports_are_relative_or_of_torch_triton_and_the_standard_library(folder):
    for file in (folder / "build").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names.append(node.module)
            tops = {name.partition(".")[0] for name in names}
            assert tops <= {"torch", "triton", *sys.stdlib_module_names}, file


def test_the_same_sources_give_the_same_bytes_anywhere_and_again(folder, tmp_path):
    first = contents(staged(tmp_path / "a"))
    assert contents(staged(tmp_path / "a")) == first  # over itself, and nothing is left behind
    assert {k: v for k, v in contents(folder).items() if "__pycache__" not in k} == first
    other = contents(staged(tmp_path / "b", "--version", "1"))
    assert set(other) == set(first)
    assert b"version=1" in other["README.md"]


def test_a_build_over_an_older_one_keeps_nothing_of_it(tmp_path):
    folder = staged(tmp_path / "kernel")
    (folder / "build" / "torch-cpu" / "gone.py").write_text("")
    (folder / ".git").mkdir()  # a clone of the Hub's repository stays one
    assert not (staged(folder) / "build" / "torch-cpu" / "gone.py").exists()
    assert (folder / ".git").is_dir()


@pytest.fixture
def sources(tmp_path):
    """A copy of what the command reads, to be changed."""
    for part in ("kernels/hub", "kernels/seattn_kernels", "seattn/ops"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "LICENSE", tmp_path)
    return tmp_path


def test_a_changed_kernel_is_another_kernel(sources, folder):
    math = sources / "kernels" / "seattn_kernels" / "_math.py"
    math.write_text(math.read_text() + "# changed\n")
    changed = staged(sources / "out", command=sources / STAGE.relative_to(ROOT))
    ids = [Metadata.read_from_file(f / "build" / "torch-cpu" / "metadata.json").id for f in (folder, changed)]
    assert ids[0] != ids[1]


@pytest.mark.parametrize(
    "line", ["from seattn.core.errors import UserError", "import seattn", "from seattn.ops import nothing"]
)
def test_a_source_that_imports_what_is_not_there_is_refused_by_name(sources, line):
    excite = sources / "seattn" / "ops" / "_tail" / "excitation.py"
    excite.write_text(f"{line}\n" + excite.read_text())
    done = stage(sources / "out", command=sources / STAGE.relative_to(ROOT))
    assert done.returncode == 2
    assert done.stderr.startswith("stage.py: ops/_tail/excitation.py imports seattn")
    assert done.stderr.count("\n") == 1
    assert not (sources / "out").exists()


def _a_file(path):
    path.write_text("mine")


def _a_folder_of_something_else(path):
    path.mkdir()
    (path / "README.md").write_text("mine")


@pytest.mark.parametrize(
    ("prepare", "arguments", "says"),
    [
        (_a_file, (), "is a file; give a folder"),
        (_a_folder_of_something_else, (), "holds other files; give a new folder"),
        (lambda path: None, ("--version", "-1"), "--version must be 0 or more; got -1"),
    ],
    ids=["file", "other-folder", "version"],
)
def test_a_mistake_is_one_line_and_writes_nothing(tmp_path, prepare, arguments, says):
    target = tmp_path / "target"
    prepare(target)
    before = contents(tmp_path)
    done = stage(target, *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert contents(tmp_path) == before
