"""PAWS: semi-supervised learning with support samples, in JAX and Flax."""
