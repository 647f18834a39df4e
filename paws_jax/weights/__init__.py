"""Weights of other formats and runs: reading, renaming and writing."""
