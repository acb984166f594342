"""Errors, files, records, recipes, rows and devices, which every other part of the package uses."""
