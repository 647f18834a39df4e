"""Writers of a run's metrics beside metrics.jsonl."""
