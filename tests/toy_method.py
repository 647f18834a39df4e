"""A method on a toy encoder: what the tests of all methods share.

Eight images, six supports of three classes with two views each, in float64.
"""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from paws_jax import config as config_lib
from paws_jax import data
from paws_jax import methods
from paws_jax import models
from paws_jax.config import methods as config_methods
from paws_jax.methods import base
from paws_jax.methods import chunks
from paws_jax.models import batch_norm
from paws_jax.models import encoder as encoder_lib
from paws_jax.models import heads
from paws_jax.parallel import mesh
from paws_jax.training import state as state_lib

_FIELDS = {"temperature": 0.2, "sharpen_temperature": 0.5}
NUM_CLASSES = 3
# Most of the time of these tests is the compiler's.
_QUICK = {"xla_backend_optimization_level": 0}
_WEIGHTS = {}
SMOOTHING = 0.1
# The ids of `make_views` are below the number of images.
FACTS = base.Facts(
  num_images=30,
  num_classes=NUM_CLASSES,
  class_counts=(2,) * NUM_CLASSES,
  batch_size=8,
)


class _Trunk(nn.Module):
  """One convolution: enough of an encoder, and quick to compile."""

  settings: batch_norm.LayerSettings

  @nn.compact
  def __call__(self, images, *, train, mask=None):
    dtype = self.settings.dtype
    x = nn.Conv(6, (3, 3), dtype=dtype, param_dtype=dtype)(images)
    x = self.settings.batch_norm("bn")(x, train=train, mask=mask)
    return nn.relu(x).mean((1, 2))


def _encoder(*, prediction, axis_name, projection=True):
  settings = batch_norm.LayerSettings(
    momentum=0.9,
    dtype=jnp.float64,
    param_dtype=jnp.float64,
    axis_name=axis_name,
  )
  return models.Encoder(
    trunk=_Trunk(settings),
    projection=heads.ProjectionHead(8, 8, settings) if projection else None,
    prediction=heads.PredictionHead(8, settings)
    if prediction and projection
    else None,
  )


def create(
  *, prediction=True, axis_name=None, remat="none", class_counts=None, **fields
):
  """A method by the fields of its section."""
  smoothing = fields.pop("label_smoothing", SMOOTHING)
  section = config_lib.method_section(fields.get("name", "paws"), _FIELDS)
  kind = config_methods.config_class(section.name)
  return methods.create(
    section.to_dict() | fields,
    encoder=_encoder(
      prediction=prediction,
      projection=not kind.class_head,
      axis_name=axis_name,
    ),
    label_smoothing=smoothing,
    remat=remat,
    axis_name=axis_name,
    class_counts=class_counts,
  )


def in_chunks(method, count, *, own_statistics=False):
  """The method, encoding in chunks and, if asked to, without other devices.

  Args:
    method: of `create`.
    count: chunks of a device.
    own_statistics: whether BatchNorm statistics are those of a device.
  """
  method_encoder = method.encoder
  if own_statistics:
    method_encoder = encoder_lib.with_settings(
      method_encoder,
      axis_name=mesh.DATA_AXIS,
      group_axis_name=mesh.GROUP_AXIS,
    )
  chunking = chunks.InScan(count) if count > 1 else None
  return dataclasses.replace(
    method, encoder=method_encoder.clone(chunking=chunking)
  )


def make_views(*, num_large=2, num_small=1, num_supports=6, seed=0):
  """Eight images and two views each of the supports, float64."""
  rng = np.random.default_rng(seed)

  def images(*shape):
    return rng.normal(size=(*shape, 3))

  return data.Views(
    crops={"large": images(8, num_large, 6, 6)}
    | ({"small": images(8, num_small, 4, 4)} if num_small else {}),
    ids=np.arange(8) + 20,
    support=images(num_supports, 2, 6, 6),
    support_ids=np.arange(num_supports),
    support_mask=None,
    support_labels=np.arange(num_supports) % NUM_CLASSES + 5,
    class_ids=np.arange(NUM_CLASSES) + 5,
  )


def section_of(method, section):
  """Section `views` with the names of the views that a method has.

  Those of a method with a class head are weak and strong ones, as "large".
  """
  if not method.config.class_head:
    return section
  specs = {
    name: dataclasses.replace(section.specs["large"], count=count)
    for name, count in method.view_counts.items()
  }
  specs = specs or {"support": section.specs["large"]}
  return dataclasses.replace(section, specs=specs)


def views_of(method, views):
  """Views with the names that a method has, and labels from 0."""
  if not method.config.class_head:
    return views
  large, crops, first = views.crops.get("large"), {}, 0
  for name, count in method.view_counts.items():
    crops[name] = large[:, first : first + count]
    first += count
  return views._replace(
    crops=crops,
    ids=views.ids if crops else None,
    support_labels=views.support_labels - 5,
    class_ids=views.class_ids - 5,
  )


def without_unlabelled(views):
  """For methods that train on labelled images alone."""
  return views._replace(crops={}, ids=None)


def padded(views, num_rows, seed=9):
  """Supports padded to `num_rows` with images that must not matter."""
  missing = num_rows - len(views.support)
  rng = np.random.default_rng(seed)
  padding = 3 + 5 * rng.normal(size=(missing, *views.support.shape[1:]))
  return views._replace(
    support=np.concatenate([views.support, padding]),
    support_ids=np.resize(views.support_ids, num_rows),
    support_mask=np.arange(num_rows) < len(views.support),
  )


def init(method, views):
  """Weights in general position, running statistics too."""
  encoder = method.encoder
  # Of most methods they depend on the encoder alone, and on no axis of it.
  kind = (
    type(method).init,
    type(encoder.trunk),
    encoder.prediction is not None,
    encoder.projection is not None,
    getattr(method.config, "num_prototypes", None),
  )
  if kind not in _WEIGHTS:
    _WEIGHTS[kind] = _init(single_device(method), views)
  return _WEIGHTS[kind]


@functools.partial(jax.jit, static_argnums=0, compiler_options=_QUICK)
def _init(method, views):
  params, batch_stats = method.init(jax.random.key(0), views, FACTS)
  leaves, tree = jax.tree.flatten((params, batch_stats))
  rng = np.random.default_rng(1)
  leaves = [x + 0.1 * np.abs(rng.normal(size=x.shape)) for x in leaves]
  return jax.tree.unflatten(tree, leaves)


def _loss(method, params, batch_stats, views, step, num_devices=1):
  key = jax.random.key(0)

  def local(params, batch_stats, extra, views, step):
    output = method.loss(params, batch_stats, extra, views, step=step, key=key)
    return output.loss, (output.metrics, output.batch_stats)

  # Of the initial weights, whatever is differentiated.
  weights = jax.lax.stop_gradient((params, batch_stats))
  extra = method.init_extra(jax.random.fold_in(key, 1), *weights, FACTS)
  if num_devices > 1:
    devices = mesh.make_mesh(jax.devices()[:num_devices])
    trainer = types.SimpleNamespace(method=method, mesh=devices)
    extra = state_lib.pad_extra(trainer, extra)
    local = mesh.shard_map(
      local,
      devices,
      in_specs=(P(), P(), method.extra_specs, data.batch_specs(views), P()),
      out_specs=P(),
    )
  return local(params, batch_stats, extra, views, step)


@functools.partial(jax.jit, static_argnums=(0, 5), compiler_options=_QUICK)
def _loss_and_grads(method, params, batch_stats, views, step, num_devices):
  loss = jax.value_and_grad(functools.partial(_loss, method), has_aux=True)
  return loss(params, batch_stats, views, step, num_devices)


def evaluate(method, views, *, num_devices=1, step=0):
  """Returns loss, metrics, updated statistics and gradients."""
  with jax.enable_x64(True):
    params, state = init(method, views)
    (value, (metrics, state)), grads = _loss_and_grads(
      method, params, state, views, np.int32(step), num_devices
    )
  return jax.device_get(
    {
      "loss": value,
      "metrics": metrics,
      "batch_stats": state,
      "grads": grads,
    }
  )


@functools.partial(jax.jit, static_argnums=(0, 4), compiler_options=_QUICK)
def _forward(method, params, batch_stats, views, num_devices):
  return _loss(method, params, batch_stats, views, np.int32(0), num_devices)


def measure(method, views, *, num_devices=1):
  """Returns the metrics alone: quicker to compile than `evaluate`."""
  with jax.enable_x64(True):
    weights = init(method, views)
    _, (metrics, _) = _forward(method, *weights, views, num_devices)
  return jax.device_get(metrics)


def single_device(method):
  """For initialisation, which knows nothing of devices."""
  return dataclasses.replace(method, axis_name=None)


def assert_same(actual, expected, atol=1e-12):
  """Compares pytrees of float64."""
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=atol),
    actual,
    expected,
  )
