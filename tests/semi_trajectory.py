"""Runs methods with a class head beside `*_trajectory` of tests/golden/semi.

The network is fc1, bn1, ReLU and fc2, on vectors.
"""

import dataclasses
import functools

import jax.numpy as jnp
from flax import linen as nn

from paws_jax import config as config_lib
from paws_jax import data
from paws_jax import methods
from paws_jax import models
from paws_jax import optim
from paws_jax.methods import base
from paws_jax.methods import class_head
from paws_jax.models import batch_norm
from tests import golden_reference
from tests import ssl_trajectory


class Trunk(nn.Module):
  """fc1, bn1 and ReLU, of images [n, 1, 1, D]."""

  width: int
  settings: batch_norm.LayerSettings
  norm: bool = True

  @property
  def num_features(self):
    return self.width

  @nn.compact
  def __call__(self, x, *, train, mask=None):
    dtype = self.settings.dtype
    dense = functools.partial(nn.Dense, dtype=dtype, param_dtype=dtype)
    x = dense(self.width, name="fc1")(x.reshape(len(x), -1))
    if self.norm:
      x = self.settings.batch_norm("bn1")(x, train=train, mask=mask)
    return nn.relu(x)


def make(
  name,
  fields,
  config,
  x64,
  *,
  smoothing=0.0,
  total_steps=1,
  axis_name=None,
  norm=True,
):
  """A method on this network."""
  dtype = jnp.float64 if x64 else jnp.float32
  settings = batch_norm.LayerSettings(
    momentum=0.9, dtype=dtype, param_dtype=dtype, axis_name=axis_name
  )
  section = config_lib.method_section(name).to_dict()
  method = methods.create(
    section | fields,
    encoder=models.Encoder(trunk=Trunk(config["H"], settings, norm)),
    label_smoothing=smoothing,
    axis_name=axis_name,
  )
  facts = base.Facts(num_classes=config["K"], total_steps=total_steps)
  return dataclasses.replace(method, facts=facts)


def network(params, batch_stats):
  """Parameters of encoder and layer, and statistics, by the golden names."""
  layer = params[class_head.HEAD]
  return {
    "params": {"trunk": {**params["trunk"], "fc2": layer}},
    "batch_stats": {"trunk": batch_stats["trunk"]},
  }


def weights(method, config, x64, prefix):
  """Parameters and statistics by the formula, under a prefix."""
  dtype = jnp.float64 if x64 else jnp.float32
  shapes = {
    "fc1": (config["H"], config["D"]),
    "bn1": (config["H"],),
    "fc2": (config["K"], config["H"]),
  }

  def leaf(layer, name, shape):
    filled = golden_reference.fill(f"{prefix}.{layer}.{name}", shape)
    return jnp.asarray(filled.T, dtype)

  trunk = {
    "fc1": {
      "kernel": leaf("fc1", "weight", shapes["fc1"]),
      "bias": leaf("fc1", "bias", shapes["bn1"]),
    },
    "bn1": {
      "scale": leaf("bn1", "weight", shapes["bn1"]),
      "bias": leaf("bn1", "bias", shapes["bn1"]),
    },
  }
  stats = {
    "mean": leaf("bn1", "running_mean", shapes["bn1"]),
    "var": leaf("bn1", "running_var", shapes["bn1"]),
  }
  layer = {
    "kernel": leaf("fc2", "weight", shapes["fc2"]),
    "bias": leaf("fc2", "bias", (config["K"],)),
  }
  params = {"trunk": trunk, class_head.HEAD: layer}
  return params, {"trunk": {"bn1": stats}}


def views(arrays, step, x64, crops):
  """The views of a step; crops are keys of the file by name of the view."""
  dtype = jnp.float64 if x64 else jnp.float32

  def images(key):
    return jnp.asarray(arrays[key][step], dtype)[:, None, None, None, :]

  labels = jnp.asarray(arrays["labels"][step])
  return data.Views(
    crops={
      name: jnp.concatenate([images(key) for key in keys], axis=1)
      for name, keys in crops.items()
    },
    ids=jnp.arange(len(arrays[next(iter(crops.values()))[0]][step])),
    support=images("x"),
    support_ids=jnp.arange(len(labels)),
    support_labels=labels,
    class_ids=jnp.arange(arrays["labels"].max() + 1),
  )


def optimizer(config, *, schedule, total_steps):
  """SGD as the files have it."""
  made, _ = optim.create(
    {
      "name": "sgd",
      "start_lr": config["lr"],
      "peak_lr": config["lr"],
      "schedule": schedule,
      "warmup_epochs": 0.0,
      "weight_decay": config["weight_decay"],
      "momentum": config["momentum"],
      "nesterov": config["nesterov"],
      "lr_in_momentum": False,
    },
    steps_per_epoch=1,
    total_steps=total_steps,
  )
  return made


class Run(ssl_trajectory.Run):
  """A method's state, and its steps."""

  def __init__(self, method, made):
    self.method, self.optimizer = method, made


def assert_network(variables, arrays, step, prefix, x64):
  """Compares a network with its checksums after a step."""
  for part in variables.values():
    ssl_trajectory.assert_checksums(
      part, arrays, step, {"trunk": prefix}, x64, float32=5e-5
    )
