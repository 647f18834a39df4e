"""Which training images are labelled."""
