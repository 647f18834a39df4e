"""Weights of other formats and runs: reading, naming, writing."""
