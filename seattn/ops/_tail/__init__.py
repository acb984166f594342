"""The tail of a residual block with channel attention: one operator for every kind."""
