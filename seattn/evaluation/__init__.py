"""What a net does and costs: scores, predictions, gates, explanations, statistics."""
