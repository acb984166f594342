"""Nets as files for other runtimes, such as ONNX Runtime, OpenVINO and ExecuTorch, checked against PyTorch."""

from typing import TYPE_CHECKING

from seattn.core.lazy import lazily

if TYPE_CHECKING:
    from seattn.deploy.exporting import export_model
    from seattn.deploy.runtime import load_exported

__all__ = ["export_model", "load_exported"]

__getattr__ = lazily(__name__, {"export_model": "exporting", "load_exported": "runtime"})
