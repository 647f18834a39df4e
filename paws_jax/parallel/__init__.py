"""Devices: mesh, shardings, collectives."""
