"""Start, watch and stop a run of several processes; README.md says why."""
