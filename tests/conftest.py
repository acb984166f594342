"""For every test: Triton's interpreter where there is no GPU; what a test changes for the process is put back."""

import os
from collections.abc import Callable, Generator, Iterator

import pytest

from tests.helpers.cover import mark_the_rest_slow

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a core a worker and its children; read when torch is imported
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when a kernel is decorated: before seattn is imported
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic algorithms ask for it on a GPU

from seattn.ops import get_kernels, set_kernels

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    return min(os.cpu_count() or 1, 8)  # a worker takes 1 GB, and seconds to import torch


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None, None, None]:
    mark_the_rest_slow(items)
    yield  # -m and -k choose
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    if gpu and not torch.cuda.is_available():
        # One skip that says how many: a report for each of two thousand takes as long as many tests.
        gpu[0].add_marker(pytest.mark.skip(reason=f"needs a CUDA device ({len(gpu)} tests)"))
        config.hook.pytest_deselected(items=gpu[1:])
        left_out = set(gpu[1:])
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(autouse=True)
def _kernels_restored() -> Iterator[None]:
    with set_kernels(get_kernels()):
        yield


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=["cpu", CUDA])
def device(request: pytest.FixtureRequest) -> str:
    """Every device that is here."""
    return str(request.param)


@pytest.fixture(params=["cpu", CUDA])
def kernel_device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every device that runs Triton kernels (a CPU by the interpreter), with torch.empty filled with NaN."""
    if request.param == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("needs TRITON_INTERPRET=1")
    former = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield str(request.param)
    torch.use_deterministic_algorithms(former[0])
    torch.utils.deterministic.fill_uninitialized_memory = former[1]


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command; hold that it ends in one line on stderr, prints nothing else, and exits with 2; the line."""
    from seattn.__main__ import main

    def run(*args: object) -> str:
        capsys.readouterr()
        assert main([str(arg) for arg in args]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("seattn: ")
        assert err.endswith("\n")
        assert err.count("\n") == 1
        return err

    return run
