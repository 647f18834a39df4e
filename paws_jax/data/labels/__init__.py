"""The choice of the labelled training images."""
