"""Run directories: checkpoints, metrics, results, recipe, provenance."""
