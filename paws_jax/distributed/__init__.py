"""Several processes as one run: launch, rendezvous, agreement."""
