"""A search for a recipe's best values; the only part that needs Optuna."""
