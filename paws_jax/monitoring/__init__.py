"""Checks of a run's health, and reference curves to compare with."""
