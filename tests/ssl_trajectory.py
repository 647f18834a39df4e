"""Runs a method's steps beside `trajectory_*` of tests/golden/ssl."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import traverse_util

from paws_jax import config as config_lib
from paws_jax import data
from paws_jax import methods
from paws_jax import models
from paws_jax import optim
from paws_jax.methods import base
from paws_jax.models import batch_norm
from paws_jax.models import heads
from paws_jax.training import optimizer_groups
from tests import golden_reference

# A step takes a second or more to compile: that in float32, of which fewer
# digits are right, is left to `make test`.
each_dtype = pytest.mark.parametrize(
  "x64",
  [True, pytest.param(False, marks=pytest.mark.slow)],
  ids=["x64", "float32"],
)
_LEAVES = {
  "kernel": "weight",
  "scale": "weight",
  "bias": "bias",
  "mean": "running_mean",
  "var": "running_var",
}


class Trunk(nn.Module):
  """The trunk of the golden trajectories."""

  widths: tuple[int, int]
  settings: batch_norm.LayerSettings

  @property
  def num_features(self):
    return self.widths[1]

  @nn.compact
  def __call__(self, x, *, train, mask=None):
    dtype = self.settings.dtype
    for i, width in enumerate(self.widths):
      x = nn.Conv(
        width,
        (3, 3),
        strides=i + 1,
        padding=1,
        use_bias=False,
        dtype=dtype,
        param_dtype=dtype,
        name=f"conv{i + 1}",
      )(x)
      norm = self.settings.batch_norm(f"bn{i + 1}")
      x = nn.relu(norm(x, train=train, mask=mask))
    return x.mean((1, 2))


def encoder(config, x64, *, projection, prediction=None):
  """The encoder of a trajectory; the heads are fields of `ProjectionHead`."""
  dtype = jnp.float64 if x64 else jnp.float32
  settings = batch_norm.LayerSettings(
    momentum=0.9, dtype=dtype, param_dtype=dtype
  )
  head = functools.partial(
    heads.ProjectionHead, output_dim=config["D"], settings=settings
  )
  return models.Encoder(
    trunk=Trunk((config["w1"], config["w2"]), settings),
    projection=head(**projection),
    prediction=None if prediction is None else head(**prediction),
  )


def torch_name(path, prefixes):
  """Name in the golden file of one of our arrays.

  Args:
    path: ("trunk", "conv1", "kernel") or ("projection", "fc2", "bias").
    prefixes: of each part; layers of heads are numbered as in nn.Sequential.
  """
  part, layer, leaf = path
  if part != "trunk":
    kind, number = layer[:2], int(layer[2:]) - 1
    stride = prefixes.get(f"{part}_stride", 3)
    layer = str(stride * number + (kind == "bn"))
  prefix = prefixes[part]
  return ".".join(filter(None, (prefix, layer, _LEAVES[leaf])))


def from_torch(array, leaf):
  """An array in our layout."""
  if leaf == "kernel":
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
  return array


def to_torch(array, leaf):
  """The inverse of `from_torch`."""
  if leaf == "kernel":
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
  return array


def initial(method, batch):
  """(params, batch_stats) of zeros, in the place of which come others."""
  shapes = jax.eval_shape(
    lambda: method.init(jax.random.key(0), batch, method.facts)
  )
  return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def formula(variables, prefixes):
  """The same tree, filled by the formula under the golden file's names."""
  flat = traverse_util.flatten_dict(variables)
  filled = {}
  for path, array in flat.items():
    name = torch_name(path, prefixes)
    shape = to_torch(np.asarray(array), path[-1]).shape
    value = from_torch(golden_reference.fill(name, shape), path[-1])
    filled[path] = jnp.asarray(value, array.dtype)
  return traverse_util.unflatten_dict(filled)


def views(arrays, step, x64, *, names=("views",)):
  """The views of a step, normalized, and nothing else."""
  dtype = jnp.float64 if x64 else jnp.float32
  crops = {}
  for name, key in zip(("large", "small"), names, strict=False):
    images = golden_reference.normalise(arrays[f"{key}.{step}"], "cifar")
    crops[name] = jnp.asarray(images.swapaxes(0, 1), dtype)
  count = next(iter(crops.values())).shape[0]
  return data.Views(
    crops=crops,
    ids=jnp.arange(count),
    support=None,
    support_ids=None,
    support_mask=None,
    support_labels=None,
    class_ids=None,
  )


class Run:
  """A method's state, and its steps with the learning rates of a file."""

  def __init__(self, monkeypatch, method, arrays, config, **section):
    self.arrays, self.config, self.method = arrays, config, method
    rates = jnp.asarray(config["lrs"])

    def schedule(*, peak_lr, total_steps, **_):
      return (lambda step: peak_lr) if total_steps == 1 else rates.__getitem__

    monkeypatch.setattr(optim.schedules, "warmup_cosine", schedule)
    fields = {
      "decayed": "all",
      "weight_decay": config["wd"],
      "momentum": config["momentum"],
      "lr_in_momentum": False,
      "warmup_epochs": 0.0,
      "peak_lr": config["lrs"][0],
    } | section
    optimizer, _ = optim.create(
      fields, steps_per_epoch=1, total_steps=config["steps"]
    )
    self.optimizer = optimizer_groups.create(
      optimizer, method, config_lib.Optim(**fields)
    )

  def start(self, params, batch_stats, extra):
    """Sets the state at step 0."""
    self.params, self.batch_stats, self.extra = params, batch_stats, extra
    self.opt_state = jax.jit(self.optimizer.init)(params)

  def step(self, step, batch):
    """Takes a step; returns its loss and the gradients."""
    values = self._step(
      self.params,
      self.batch_stats,
      self.extra,
      self.opt_state,
      batch,
      jnp.int32(step),
    )
    loss, grads, *state = values
    self.params, self.batch_stats, self.extra, self.opt_state = state
    return loss, grads

  @functools.partial(jax.jit, static_argnums=0)
  def _step(self, params, batch_stats, extra, opt_state, batch, step):
    def loss(params):
      output = self.method.loss(
        params, batch_stats, extra, batch, step=step, key=None
      )
      return output.loss, output

    (value, output), grads = jax.value_and_grad(loss, has_aux=True)(params)
    updates, opt_state = self.optimizer.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)
    params, extra = self.method.after_update(
      params,
      output.batch_stats,
      extra,
      output.rows,
      step=step,
      finite=jnp.asarray(True),
    )
    return value, grads, params, output.batch_stats, extra, opt_state


def make(name, fields, encoder_, **facts):
  """A method by its section, with the facts of its run."""
  fields = dict(fields)
  smoothing = fields.pop("label_smoothing", 0.0)
  section = config_lib.method_section(name).to_dict()
  method = methods.create(
    section | fields | {"health_metrics": False},
    encoder=encoder_,
    label_smoothing=smoothing,
  )
  return dataclasses.replace(method, facts=base.Facts(**facts))


def assert_checksums(
  variables, arrays, step, prefixes, x64, *, skip=(), without=(), float32=1e-3
):
  """Compares every array with its checksums after a step."""
  for path, array in traverse_util.flatten_dict(variables).items():
    name = torch_name(path, prefixes)
    if name in without or (name in skip and not x64):
      continue
    actual = golden_reference.checksum(
      name, to_torch(np.asarray(array), path[-1])
    )
    expected = arrays[f"sum.{name}_f64"][step]
    difference = np.abs(actual - expected).max() / (1 + expected[1])
    assert difference < (1e-9 if x64 else float32), (name, step, difference)


def assert_loss(value, arrays, step, x64, *, float32=1e-4):
  """Compares the loss of a step, relative to the largest one."""
  largest = np.abs(arrays["loss_f64"]).max()
  difference = abs(np.float64(value) - arrays["loss_f64"][step]) / largest
  assert difference < (1e-10 if x64 else float32), (step, difference)
