"""A web page that classifies images: the nets' answers, the page (gradio), and the server."""

from typing import TYPE_CHECKING

from seattn.core.lazy import lazily

if TYPE_CHECKING:
    from seattn.deploy.app.page import build_page
    from seattn.deploy.app.server import run

__all__ = ["build_page", "run"]

__getattr__ = lazily(__name__, {"build_page": "page", "run": "server"})
