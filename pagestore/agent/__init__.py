"""The agent of a host: its computes' directories and processes, and sessions inside them."""
