"""Accuracy of embeddings by several protocols."""
