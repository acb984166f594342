"""For all tests: Triton's interpreter on machines without a GPU, and fixtures that undo changes to the process."""

import os
import signal
from collections.abc import Callable, Generator, Iterator

import pytest

from tests.helpers.cover import mark_the_rest_slow

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core for each worker and its children; torch reads it at import
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before seattn is imported: kernels read it
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic algorithms need it on a GPU

from seattn.ops import get_kernels, set_kernels

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    return min(os.cpu_count() or 1, 8)  # a worker takes 1 GB, and seconds to import torch


def pytest_configure() -> None:
    """Ctrl-C works also where a shell has started the tests in the background, with SIGINT ignored.

    Tests interrupt this process and others, which would inherit that.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None, None, None]:
    mark_the_rest_slow(items)
    yield  # -m and -k choose
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    if gpu and not torch.cuda.is_available():
        # One skip that states their number: reporting two thousand skips takes as long as many tests.
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
    """Each device of this machine."""
    return str(request.param)


@pytest.fixture(params=["cpu", CUDA])
def kernel_device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each device that runs Triton kernels (a CPU by the interpreter); torch.empty is filled with NaN."""
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
    """Run the command, check that it exits with 2 and prints only one line, on stderr, and return the line."""
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
