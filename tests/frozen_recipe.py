"""Small recipes with a frozen trunk, in memory and on disk."""

import jax
import numpy as np

from paws_jax import models
from paws_jax.weights import torch_names
from tests import small_runs
from tests import tiny_recipe

PIPELINES = ("memory", "disk")
MODEL = {"name": "resnet_tiny", "output_dim": 8, "prediction_head": False}


def write_weights(path, channels):
  """Writes a trunk of positive weights; returns its variables."""
  encoder = models.create(MODEL)
  shapes = jax.eval_shape(
    lambda key: encoder.init(
      key, np.zeros((1, 32, 32, channels), np.float32), train=False
    ),
    jax.random.key(0),
  )
  rng = np.random.default_rng(0)
  trunk = jax.tree.map(
    lambda leaf: rng.uniform(0.05, 0.1, leaf.shape).astype(np.float32),
    {kind: {"trunk": parts["trunk"]} for kind, parts in shapes.items()},
  )
  np.savez(path, **torch_names.to_torch(trunk))
  return trunk


def create(directory, pipeline):
  """Writes data and weights; returns a recipe, and the variables."""
  config = tiny_recipe.get_config()
  fields = {f"model.{name}": value for name, value in MODEL.items()} | {
    "model.trunk": "frozen",
    "model.init_from": str(directory / "trunk.npz"),
    # Gentle, so that rounding stays rounding.
    **{n: v for n, v in small_runs.SMALL.items() if n.startswith("optim.")},
    "optim.weight_decay": 0.1,
    "method.prior": "estimate",
    "views.cached": 3,
    "views.cached_support": 5,
  }
  if pipeline == "memory":
    trunk = write_weights(directory / "trunk.npz", 1)
    fields |= small_runs.in_memory(small_runs.write_digits(directory / "data"))
  else:
    trunk = write_weights(directory / "trunk.npz", 3)
    photos = small_runs.write_photos(directory / "photos")
    fields |= small_runs.on_disk(photos)
  config.update_from_flattened_dict(fields)
  return config, trunk
