"""A trained encoder with the labelled images that vote for the classes."""
