"""A recipe and images become a run: weights, scores, one row."""
