"""The report of a run, a web page."""
