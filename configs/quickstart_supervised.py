"""The quickstart without its unlabelled images: the baseline of PAWS.

  python -m paws_jax.main --config=configs/quickstart_supervised.py

The same encoder, views, supports, optimiser, steps and evaluation as
configs/quickstart.py, but the loss sees the 40 labelled images alone: each is
classified by a soft nearest-neighbour vote of the others (SuNCEt, 2020).
"""

import importlib.util
import pathlib

from paws_jax import config as config_lib


def get_config():
  config = _quickstart()
  config.method = config_lib.method_section("supervised")
  config.log.next_command = (
    "python -m paws_jax.main --config=configs/quickstart.py "
    "--workdir=runs/quickstart-10 --config.data.labels_per_class=10"
  )
  return config


def _quickstart():
  # Recipes are found by path, not on the import path: so is this one.
  path = pathlib.Path(__file__).with_name("quickstart.py")
  spec = importlib.util.spec_from_file_location("quickstart", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config()
