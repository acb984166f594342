"""The ground: errors, files, records, recipes, rows and devices; what every part uses."""
