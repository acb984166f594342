"""The queue of the zoo's weights, zoo_configs/queue.yaml, and the command that trains it."""
