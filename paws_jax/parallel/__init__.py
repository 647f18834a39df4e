"""The mesh of devices, shardings and collectives."""
