"""A net as a program of plain operators of PyTorch, from which every other format is made.

Shapes: B images, C channels, H x W pixels.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

DYNAMIC_BATCH = ({0: Dim("batch")},)


def trace(net: nn.Module, x: Tensor, batch: tuple[dict[int, Any], ...] = DYNAMIC_BATCH) -> ExportedProgram:
    """The net, traced on x (B, C, H, W) with B >= 2, for any B that `batch` allows.

    The program does not name the source files of this machine.
    """
    program = torch.export.export(net, (x,), dynamic_shapes=batch)
    for module in program.graph_module.modules():
        if isinstance(module, GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
    return program
