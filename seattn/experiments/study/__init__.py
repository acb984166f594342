"""Variants of a recipe over seeds, compared on the held-out images."""
