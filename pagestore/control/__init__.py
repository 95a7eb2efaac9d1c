"""The control plane: databases as names of timelines, their checkpoints, their computes."""
