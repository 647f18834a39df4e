"""`python -m paws_jax`, the same command as `python -m paws_jax.main`."""

import runpy

runpy.run_module("paws_jax.main", run_name="__main__", alter_sys=True)
