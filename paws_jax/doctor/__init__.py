"""Checks of a recipe and its data before training."""
