"""What a net costs by part: parameters, MACs, memory, passes over maps."""
