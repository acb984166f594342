"""Triton kernels behind seattn.ops. Depends on torch and triton alone; users import seattn.ops, never this package."""
