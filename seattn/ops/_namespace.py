"""The operators' namespace, torch.ops.<NAMESPACE>; a build for the Hub (kernels/hub/stage.py) gets one of its own."""

NAMESPACE = "seattn"
