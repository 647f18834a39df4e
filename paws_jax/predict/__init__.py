"""Classes for any images, as a table."""
