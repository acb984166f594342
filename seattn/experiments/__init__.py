"""Many trainings: studies of variants over seeds, searches for a recipe's values."""
