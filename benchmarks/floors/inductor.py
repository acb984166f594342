"""The kernels that torch.compile launches on a GPU, counted without one: inductor's own code for CUDA, never run.

AOTAutograd traces the module on a CPU, because autograd asks the driver about any other device. The graphs of forward
and backward are then moved to a fake CUDA device and given to inductor, which fuses and writes its code as for an H200.
This uses private functions of torch; `count_compiled` raises UserError where a version of torch has other ones.
"""

# mypy: disable-error-code="import-untyped"
# (triton has no types)

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import triton
from torch import Tensor, nn
from triton.backends.compiler import GPUTarget

from seattn.core.errors import UserError, first_line

# What inductor asks about the device, as an H200 answers.
_PROPERTIES = SimpleNamespace(
    name="NVIDIA H200",
    major=9,
    minor=0,
    multi_processor_count=132,
    max_threads_per_multi_processor=2048,
    max_threads_per_block=1024,
    regs_per_multiprocessor=65_536,
    shared_memory_per_block=48 * 2**10,
    shared_memory_per_block_optin=227 * 2**10,
    shared_memory_per_multiprocessor=228 * 2**10,
    L2_cache_size=50 * 2**20,
    total_memory=141 * 10**9,
    warp_size=32,
    gcnArchName="",
)
_CALL = re.compile(r"(?:= |^\s*)(?:(triton_\w+)\.run|(?:extern_kernels|torch\.ops\.\w+)\.(\w+)[\w.]*)\(", re.MULTILINE)


def count_compiled(module: nn.Module, x: Tensor, *, training: bool) -> list[list[str]]:
    """The names of the kernels and of torch's operators that the compiled module calls, in the order of the calls.

    Returns:
        One list for the forward; with `training`, a second list for the backward.

    Raises:
        UserError: if this version of torch has other private functions.
    """
    try:
        codes = _codes(module.train(training), x, training)
    except (AttributeError, ImportError, RuntimeError, TypeError) as error:
        text = first_line(error)
        raise UserError(f"torch {torch.__version__} compiles nothing for a GPU that is not here: {text}") from error
    return [calls(code) for code in codes]


def calls(code: str) -> list[str]:
    """The kernels and operators that the function `call` of inductor's code calls."""
    body = code[code.index("def call(") :]
    return [kernel or operator for kernel, operator in _CALL.findall(body)]


def _codes(module: nn.Module, x: Tensor, training: bool) -> list[str]:
    from torch._functorch.aot_autograd import aot_module, make_boxed_func
    from torch._functorch.partitioners import min_cut_rematerialization_partition
    from torch._inductor.compile_fx import _recursive_joint_graph_passes
    from torch._inductor.decomposition import select_decomp_table

    codes: list[str] = []

    def partition(graph: Any, inputs: Any, **options: Any) -> Any:
        _recursive_joint_graph_passes(graph)
        return min_cut_rematerialization_partition(graph, inputs, compiler="inductor", **options)

    def compiler(graph: Any, inputs: Sequence[Any]) -> Callable[..., Any]:
        if not training:
            _recursive_joint_graph_passes(graph)
        codes.append(_cuda_code(graph, inputs, inference=not training))
        outputs = next(iter(reversed(graph.graph.nodes))).args[0]
        return make_boxed_func(lambda *_: [_zeros_like(node) for node in outputs])

    compiled = aot_module(
        module,
        fw_compiler=compiler,
        decompositions=select_decomp_table(),
        partition_fn=partition,
    )
    with _fake_cuda(), torch.set_grad_enabled(training):
        y = compiled(x.requires_grad_(training))
        if training:
            y.sum().backward()
    return codes


def _zeros_like(node: Any) -> Any:
    value = node.meta["val"] if isinstance(node, torch.fx.Node) else node
    if not isinstance(value, Tensor):
        return value
    return torch.zeros(value.shape, dtype=value.dtype).as_strided(value.shape, value.stride())


def _cuda_code(graph: Any, inputs: Sequence[Any], *, inference: bool) -> str:
    from torch._guards import detect_fake_mode
    from torch._inductor.compile_fx import _recursive_post_grad_passes, fake_tensor_prop
    from torch._inductor.debug import DebugContext
    from torch._inductor.graph import GraphLowering
    from torch._inductor.virtualized import V

    graph = _on_cuda(graph)
    mode = detect_fake_mode(inputs)
    assert mode is not None
    with mode:
        moved = [
            torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="cuda:0")
            if isinstance(value, Tensor)
            else value
            for value in inputs
        ]
    with V.set_fake_mode(mode):
        fake_tensor_prop(graph, moved)
        _recursive_post_grad_passes(graph, is_inference=inference)
        lowering = GraphLowering(graph, example_inputs=moved, is_inference=inference)
        with V.set_graph_handler(lowering), V.set_extern_kernel_nodes([]), V.set_debug_handler(DebugContext()):
            lowering.run(*moved)
            return str(lowering.codegen()[0].value)


def _on_cuda(graph: Any) -> Any:
    graph = copy.deepcopy(graph)
    for node in graph.graph.nodes:
        node.meta.pop("val", None)
        if "device" in node.kwargs:
            node.kwargs = {**node.kwargs, "device": torch.device("cuda:0")}
    graph.recompile()
    return graph


@contextmanager
def _fake_cuda() -> Iterator[None]:
    """A `with` block in which inductor and Triton see an H200."""
    import torch._inductor.scheduler
    from torch._dynamo.device_interface import CudaInterface

    driver = SimpleNamespace(
        get_current_target=lambda: GPUTarget("cuda", 90, 32),
        get_current_device=lambda: 0,
        get_active_torch_device=lambda: torch.device("cuda:0"),
    )
    properties = staticmethod(lambda device=None: _PROPERTIES)
    with (
        mock.patch.object(CudaInterface, "get_device_properties", properties),
        mock.patch.object(CudaInterface, "get_compute_capability", staticmethod(lambda device=None: 90)),
        mock.patch.object(CudaInterface.Worker, "get_device_properties", properties),
        mock.patch.object(torch.cuda, "get_device_properties", return_value=_PROPERTIES),
        mock.patch.object(torch.cuda, "get_device_capability", return_value=(9, 0)),
        mock.patch.object(torch.cuda, "current_device", return_value=0),
        mock.patch.object(torch._inductor.scheduler, "has_triton", return_value=True),
        mock.patch.object(triton.runtime.driver, "_active", driver),
    ):
        yield
