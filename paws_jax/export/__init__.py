"""Classifiers as programs for other systems."""
