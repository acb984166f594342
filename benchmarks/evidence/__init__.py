"""Rows of accuracy, the shipped weights, and studies."""
