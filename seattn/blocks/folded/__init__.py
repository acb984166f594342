"""Batch norms that are folded into the convolutions before them, for inference."""
