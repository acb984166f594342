"""Rows of accuracy, the weights that ship, and studies."""
