"""Images that are read and decoded while training runs."""
