"""set_kernels, get_kernels and SEATTN_KERNELS: which implementation runs, and that falling back is never silent."""

import os
import runpy
import subprocess
import sys

import pytest
import torch
from torch.autograd import forward_ad

from seattn.ops import _kernel, get_kernels, set_kernels, squeeze_excite, squeeze_excite_reference
from seattn.ops._tail import operator, run


def inputs(dtype=torch.float32) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 3, 3, generator=rng).to(dtype)
    return [x, *(torch.randn(s, generator=rng) for s in ((3, 4), (3,), (4, 3), (4,)))]


def test_plain_call_stays_until_the_next_one():
    set_kernels("reference")
    assert get_kernels() == "reference"
    set_kernels("auto")
    assert get_kernels() == "auto"


def test_with_block_restores_the_former_choice_also_after_an_error():
    set_kernels("reference")

    def fails() -> None:
        with set_kernels("triton"), set_kernels("auto"):
            assert get_kernels() == "auto"
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert get_kernels() == "reference"


def test_unknown_choice_raises_and_changes_nothing():
    set_kernels("reference")
    with pytest.raises(ValueError, match="auto, triton, torch, reference; got 'cuda'"):
        set_kernels("cuda")
    assert get_kernels() == "reference"


def test_environment_variable_sets_the_first_choice(monkeypatch):
    for given, choice in (("reference", "reference"), ("", "auto")):
        monkeypatch.setenv("SEATTN_KERNELS", given)
        assert runpy.run_path(_kernel.__file__)["get_kernels"]() == choice
    monkeypatch.delenv("SEATTN_KERNELS")
    assert runpy.run_path(_kernel.__file__)["get_kernels"]() == "auto"


def test_bad_environment_variable_raises_on_import():
    env = os.environ | {"SEATTN_KERNELS": "fast"}
    done = subprocess.run([sys.executable, "-c", "import seattn.ops"], env=env, capture_output=True, text=True)
    assert "SEATTN_KERNELS must be one of auto, triton, torch, reference; got 'fast'" in done.stderr


def test_triton_on_a_cpu_without_the_interpreter_raises(monkeypatch):
    monkeypatch.setattr(_kernel, "INTERPRETED", False)
    set_kernels("triton")
    with pytest.raises(RuntimeError, match="the input is on cpu"):
        squeeze_excite(*inputs())


@pytest.mark.parametrize("kernels", ["auto", "triton"])
def test_triton_that_is_not_installed(kernels, device, monkeypatch):
    monkeypatch.setattr(_kernel, "TRITON_INSTALLED", False)
    set_kernels(kernels)
    tensors = [t.to(device) for t in inputs()]
    if kernels == "triton":
        with pytest.raises(RuntimeError, match="triton is not installed"):
            squeeze_excite(*tensors)
    else:
        torch.testing.assert_close(squeeze_excite(*tensors), squeeze_excite_reference(*tensors))


@pytest.mark.parametrize("kernels", ["auto", "triton"])
def test_dtype_that_the_kernel_does_not_take(kernels, device, monkeypatch):
    monkeypatch.setattr(_kernel, "INTERPRETED", True)
    set_kernels(kernels)
    tensors = [t.to(device) for t in inputs(torch.float64)]
    if kernels == "triton":
        with pytest.raises(RuntimeError, match=r"not torch\.float64"):
            squeeze_excite(*tensors)
    else:
        torch.testing.assert_close(squeeze_excite(*tensors), squeeze_excite_reference(*tensors))


def test_import_error_inside_a_kernel_propagates(device, monkeypatch):
    monkeypatch.setattr(_kernel, "INTERPRETED", True)
    monkeypatch.setitem(sys.modules, "seattn_kernels", None)
    set_kernels("triton" if device == "cpu" else "auto")
    with pytest.raises(ImportError):
        squeeze_excite(*(t.to(device) for t in inputs()))


@pytest.fixture
def ran(monkeypatch) -> list[str]:
    """Names of the implementations that ran, "triton" or "torch"; the reference leaves no trace."""
    names = []
    for name in ("triton", "torch"):
        function = operator.OPERATOR.fwd[name]
        spy = lambda *args, name=name, function=function: names.append(name) or function(*args)  # noqa: E731
        monkeypatch.setitem(operator.OPERATOR.fwd, name, spy)
    inference = run.attn_tail_inference
    spy = lambda *args, **options: names.append("torch") or inference(*args, **options)  # noqa: E731
    monkeypatch.setattr(run, "attn_tail_inference", spy)
    return names


@pytest.mark.parametrize(
    ("kernels", "on_cpu", "on_cuda"),
    [
        ("auto", ["torch"], ["triton"]),
        ("triton", ["triton"], ["triton"]),
        ("torch", ["torch"], ["torch"]),
        ("reference", [], []),
    ],
)
@pytest.mark.parametrize("grad", [True, False], ids=["training", "inference"])
def test_which_implementation_runs(kernels, on_cpu, on_cuda, ran, kernel_device, grad):
    x, *weights = (t.to(kernel_device) for t in inputs())
    with set_kernels(kernels):
        squeeze_excite(x.requires_grad_(grad), *weights)
    assert ran == (on_cuda if kernel_device == "cuda" else on_cpu)


def test_the_one_question_of_inference_on_a_cpu_agrees_with_the_many():
    x = inputs()[0]
    asked = _kernel.is_cpu_inference
    assert not asked(x)  # a gradient may be wanted
    with torch.no_grad():
        assert asked(x)
        assert asked(x.double())
        assert not asked(x.half())
        assert not asked(x.int())
        assert not asked(x.to("meta"))
        assert not asked(torch.fx.Proxy(torch.fx.Graph().placeholder("x")))
        with torch.autocast("cpu", torch.bfloat16):
            assert not asked(x)
        for kernels in ("torch", "reference", "triton"):
            with set_kernels(kernels):
                assert not asked(x)
        with forward_ad.dual_level():
            assert not asked(x)
        assert not torch.func.vmap(lambda t: t + asked(x))(torch.zeros(1)).any()
        compiled = torch.compile(lambda t: t * 0 + asked(t), backend="eager", fullgraph=True)
        assert not compiled(x).any()
        assert not torch.jit.trace(lambda t: t * 0 + int(asked(t)), x, check_trace=False)(x).any()
    with torch.inference_mode():
        assert asked(x)


@pytest.mark.parametrize("how", ["compile", "trace", "export", "meta", "transform"])
def test_auto_takes_the_reference_on_a_cpu_where_code_is_traced_or_transformed(how, ran):
    x, *weights = inputs()
    fn = lambda t: squeeze_excite(t, *weights)  # noqa: E731
    if how == "compile":
        torch.compile(fn, backend="aot_eager", fullgraph=True)(x)
    elif how == "trace":
        torch.jit.trace(fn, x, check_trace=False)
    elif how == "export":
        module = torch.nn.Module()
        module.forward = fn
        torch.export.export(module, (x,))
    elif how == "meta":
        squeeze_excite(*(t.to("meta") for t in inputs()))
    else:
        torch.func.vmap(fn)(x[None])
    assert ran == []
