"""The reference of the Python API: pages rendered by pdoc from the docstrings, with the table of a recipe's keys."""
