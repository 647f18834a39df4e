"""Compilation for machines that are not at hand: memory, time, collectives."""
