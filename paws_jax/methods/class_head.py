"""A linear layer on the trunk that is trained to classify, and its average.

What FixMatch, UDA, Pseudo-Label and Mean Teacher have in common. Parameters are
those of the encoder, which has no projection head, and the layer beside them.
Their exponential moving average is in `extra`; it is evaluated and saved, with
the running statistics of the trained network or an average of these.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import ClassVar
from typing import NamedTuple

import jax
import jax.numpy as jnp

from paws_jax import config as config_lib
from paws_jax import data
from paws_jax import errors
from paws_jax.losses import consistency
from paws_jax.losses import similarity
from paws_jax.methods import base
from paws_jax.methods import encoding
from paws_jax.methods import tables

# Key of the layer among the parameters.
HEAD = "class_head"
# In `extra`: of the parameters, and of the running statistics.
AVERAGE, STATISTICS = "average", "average_statistics"
_CHOSEN = "class_shares"


class Logits(NamedTuple):
  """Logits of one device, and the running statistics after them."""

  # [n·V, K] of the supports, padding included.
  labelled: jax.Array
  # [b, K] of each view of the unlabelled images.
  views: list[jax.Array]
  batch_stats: Any


class Labelled(NamedTuple):
  """The rows of this device's supports."""

  # [n·V] classes, 0 of padding.
  labels: jax.Array
  # [n·V] bool, False of padding.
  counts: jax.Array


@dataclasses.dataclass(frozen=True)
class ClassHead(base.Method):
  """A method that classifies by a linear layer on the trunk.

  Attributes:
    view_counts: crops of each name, of every unlabelled image.
  """

  view_counts: ClassVar[Mapping[str, int]] = {"weak": 1, "strong": 1}
  shown_losses: ClassVar[tuple[str, ...]] = ("cross_entropy", "consistency")

  def views(self, section: config_lib.Views) -> dict[str, config_lib.ViewSpec]:
    """Returns the crops that the method needs; others are refused."""
    wanted = self.view_counts
    crops = encoding.known_crops(
      section, tuple(wanted), method_name=self.config.name
    )
    for name, count in wanted.items():
      found = crops[name].count if name in crops else 0
      if found != count:
        raise errors.InputError(
          f"views.{name}.count is {found} but method.name is "
          f"{self.config.name!r}, which needs {count} such "
          f"crop{'s' if count > 1 else ''}: set it to {count}."
        )
    if len({(spec.size) for spec in crops.values()}) > 1:
      sizes = ", ".join(f"views.{k}.size {v.size}" for k, v in crops.items())
      raise errors.InputError(
        f"{sizes}: give the views of method {self.config.name!r} the same size."
      )
    return crops

  def init(
    self, key: jax.Array, views: data.Views, facts: base.Facts
  ) -> tuple[Any, Any]:
    """Draws the encoder, and the layer as Glorot and Bengio (2010) do."""
    params, batch_stats = super().init(key, views, facts)
    images = next(iter(views.crops.values()), views.support)
    assert images is not None
    features = jax.eval_shape(
      lambda p, s, x: self.encoder.apply(
        {"params": p, "batch_stats": s}, x, train=False, method="features"
      ),
      params,
      batch_stats,
      images[:1, 0],
    )
    kernel = jax.nn.initializers.glorot_normal()(
      jax.random.fold_in(key, 1),
      (features.shape[-1], facts.num_classes),
      jax.tree.leaves(params)[0].dtype,
    )
    layer = {"kernel": kernel, "bias": jnp.zeros_like(kernel[0])}
    return {**params, HEAD: layer}, batch_stats

  def init_extra(
    self, key: jax.Array, params: Any, batch_stats: Any, facts: base.Facts
  ) -> dict[str, Any]:
    """Starts the averages at the initial values."""
    del key, facts
    extra = {AVERAGE: params}
    if self.config.ema_statistics:
      extra[STATISTICS] = batch_stats
    return extra

  def after_update(
    self,
    params: Any,
    batch_stats: Any,
    extra: Any,
    rows: Any,
    *,
    step: jax.Array,
    finite: jax.Array,
  ) -> tuple[Any, Any]:
    """Moves the averages."""
    del rows
    new = {AVERAGE: params, STATISTICS: batch_stats}
    moved = tables.ema(
      {name: extra[name] for name in new if name in extra},
      {name: value for name, value in new.items() if name in extra},
      momentum=self.ema_decay(step),
      finite=finite,
    )
    return params, {**extra, **moved}

  def ema_decay(self, step: jax.Array) -> jax.Array | float:
    """Returns the weight of the old average in the update after a step."""
    decay = self.config.ema_decay
    if not self.config.ema_warmup:
      return decay
    return jnp.minimum(1 - 1 / (step.astype(float) + 2), decay)

  def encoder_variables(self, state: Any) -> dict[str, Any]:
    """Selects the average of the encoder."""
    return {
      "params": of_encoder(state.extra[AVERAGE]),
      "batch_stats": state.extra.get(STATISTICS, state.batch_stats),
    }

  def head(self, state: Any) -> Mapping[str, Any]:
    """Selects the average of the layer."""
    return state.extra[AVERAGE][HEAD]

  def ramp(self, step: jax.Array) -> jax.Array | float:
    """Returns the weight of the unlabelled images' loss at a step."""
    weight, share = self.config.unlabelled_weight, self.config.ramp_share
    if not share:
      return weight
    length = share * self.facts.total_steps
    return weight * self.ramp_shape(jnp.clip(step / max(length, 1), 0, 1))

  def ramp_shape(self, progress: jax.Array) -> jax.Array:
    """Computes the share of the weight after a share of the ramp."""
    return progress

  def progress(self, step: jax.Array) -> jax.Array:
    """Computes the share of the run that is done, in [0, 1]."""
    return jnp.clip(step / max(self.facts.total_steps, 1), 0, 1)

  def classify(
    self,
    params: Any,
    batch_stats: Any,
    views: Sequence[jax.Array],
    batch: data.Views | None = None,
  ) -> Logits:
    """Computes logits in training mode, as one BatchNorm batch.

    Args:
      params: of encoder and layer.
      batch_stats: of the encoder.
      views: [b, H, W, Ch] each, of unlabelled images.
      batch: its supports come first; None: without.
    """
    images, mask, count = list(views), None, 0
    if batch is not None:
      supports = encoding.fold_views(encoding.supports(batch))
      images, count = [supports, *images], supports.shape[0]
      mask = encoding.support_views_mask(batch)
      if mask is not None:
        rest = sum(view.shape[0] for view in views)
        mask = jnp.concatenate([mask, jnp.ones(rest, bool)])
    features, batch_stats = encoding.apply_training(
      self.encoder,
      of_encoder(params),
      batch_stats,
      jnp.concatenate(images),
      mask=mask,
      remat=self.remat,
      method="features",
    )
    logits = apply_head(params[HEAD], features)
    ends = [count]
    for view in views[:-1]:
      ends.append(ends[-1] + view.shape[0])
    labelled, *rows = jnp.split(logits, ends[: len(views)])
    return Logits(labelled, rows, batch_stats)

  def classify_weak_and_strong(
    self, params: Any, batch_stats: Any, batch: data.Views
  ) -> Logits:
    """Classifies supports, weak views and strong views; see `classify`."""
    views = [batch.crops[name][:, 0] for name in ("weak", "strong")]
    return self.classify(params, batch_stats, views, batch)

  def total(
    self,
    labelled: jax.Array,
    unlabelled: jax.Array,
    batch: data.Views,
    *,
    step: jax.Array,
    others: Mapping[str, jax.Array],
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Computes the loss of a step, the same on all devices.

    Args:
      labelled: [n·V, K] logits of this device's supports.
      unlabelled: scalar, this device's loss of unlabelled images.
      batch: the step's views.
      step: for the weight of the unlabelled images.
      others: this device's part of other metrics.

    Returns:
      Scalar, and the means over the devices of the metrics and of both parts,
      "cross_entropy" and "consistency", for `finished`.
    """
    means = encoding.device_means(
      {
        "cross_entropy": self.label_loss(labelled, batch),
        "consistency": unlabelled,
        **others,
      },
      self.axis_name,
    )
    weight = self.ramp(step)
    return means["cross_entropy"] + weight * means["consistency"], means

  def labelled_rows(self, batch: data.Views) -> Labelled:
    """Selects the labels of this device's supports, one a view."""
    assert batch.support_labels is not None
    supports = encoding.supports(batch)
    labels = jnp.repeat(batch.support_labels, supports.shape[1])
    count = supports.shape[0] * supports.shape[1]
    first: int | jax.Array = 0
    if self.axis_name is not None:
      first = jax.lax.axis_index(self.axis_name) * count
    places = first + jnp.arange(count)
    inside = places < labels.shape[0]
    own = labels[jnp.minimum(places, labels.shape[0] - 1)]
    return Labelled(jnp.where(inside, own, 0), inside)

  def label_loss(
    self,
    logits: jax.Array,
    batch: data.Views,
    *,
    smoothing: float | None = None,
  ) -> jax.Array:
    """Computes this device's part of the mean cross-entropy of the labels.

    Args:
      logits: [n·V, K] of the supports, padding included.
      batch: the step's views.
      smoothing: of the labels; None: the recipe's.

    Returns:
      Scalar; its mean over the devices is that of all supports.
    """
    own = self.labelled_rows(batch)
    if smoothing is None:
      smoothing = self.label_smoothing
    each = consistency.label_cross_entropy(
      logits, own.labels, smoothing=smoothing
    )
    assert batch.support_labels is not None
    total = batch.support_labels.shape[0] * encoding.supports(batch).shape[1]
    return jnp.sum(jnp.where(own.counts, each, 0)) * (self.num_devices / total)

  @property
  def num_devices(self) -> int:
    """Devices of the mesh, inside `shard_map`."""
    return 1 if self.axis_name is None else jax.lax.psum(1, self.axis_name)


def apply_head(layer: Mapping[str, Any], features: jax.Array) -> jax.Array:
  """Computes logits [n, K] of features [n, d]."""
  features = similarity.at_least_float32(features)
  product = jnp.matmul(
    features, layer["kernel"], precision=jax.lax.Precision.HIGHEST
  )
  return product + layer["bias"][None, :]


def pseudo_metrics(logits: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
  """Computes means about the pseudo-labels of this device's images.

  Args:
    logits: [b, K] that the labels come from.
    mask: [b] bool, images that count.

  Returns:
    "mask_rate", and the shares of classes, which `finished` turns into
    "classes_used".
  """
  dtype = logits.dtype
  chosen = jax.nn.one_hot(
    jnp.argmax(logits, axis=-1), logits.shape[-1], dtype=dtype
  )
  return {
    "mask_rate": jnp.mean(mask, dtype=dtype),
    _CHOSEN: jnp.mean(jax.lax.stop_gradient(chosen), axis=0),
  }


def finished(means: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
  """Converts metrics averaged over the devices to scalars.

  Returns:
    The same metrics, but "classes_used", the share of classes that an
    unlabelled image of the step is of, in place of their shares.
  """
  scalars = dict(means)
  if _CHOSEN in scalars:
    shares = scalars.pop(_CHOSEN)
    scalars["classes_used"] = jnp.mean(shares > 0, dtype=shares.dtype)
  return scalars


def of_encoder(params: Mapping[str, Any]) -> dict[str, Any]:
  """Selects the parameters of the encoder."""
  return {name: value for name, value in params.items() if name != HEAD}
