"""Figures of runs, embeddings and views."""
