"""Predictions, embeddings and labels to and from other tools.

- label_studio: tasks with predictions, and answers as a manifest.
- fiftyone: a data set with predictions, embeddings and supports.
- cleanlab: arrays to search for wrong labels.
"""
