"""Floors of the kernels' times on GPUs, and launches of a block, both found without a GPU."""
