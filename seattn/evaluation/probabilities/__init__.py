"""How probabilities come from logits: over several views of an image, at a temperature, from several models."""
