"""SwAV: views predict each other's assignments to prototypes (2020)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any
from typing import ClassVar
from typing import NamedTuple

import jax
import jax.numpy as jnp

from paws_jax import config as config_lib
from paws_jax import data
from paws_jax import errors
from paws_jax import losses
from paws_jax.config import fields
from paws_jax.losses import swav as swav_loss
from paws_jax.methods import base
from paws_jax.methods import collapse
from paws_jax.methods import encoding
from paws_jax.methods import tables
from paws_jax.parallel import mesh

PROTOTYPES = "prototypes"
# The crops with assignments: the two large ones.
_ASSIGNED = (0, 1)
_CHOSEN = "prototype_shares"


class CropEmbeddings(NamedTuple):
  """Embeddings of one device."""

  # [V·b, D], view-major: the large crops, then the small ones.
  crops: jax.Array
  # [n·V, D] of the supports, image-major, padding included; or None.
  supports: jax.Array | None


@dataclasses.dataclass(frozen=True)
class Swav(base.Method):
  """All crops of an image predict the assignments of its two large crops.

  The trunk sees crops of each size as one BatchNorm batch, the projection head
  sees all of them as one. Prototypes are parameters of unit length: they are
  normalized after each update.
  """

  shown_losses: ClassVar[tuple[str, ...]] = ("assignment_kl",)
  needs_support = False

  def views(self, section: config_lib.Views) -> dict[str, config_lib.ViewSpec]:
    """Returns two large crops and any number of small ones."""
    crops = encoding.known_crops(
      section, ("large", "small"), method_name=self.config.name
    )
    count = crops["large"].count if "large" in crops else 0
    if count != 2:
      raise errors.InputError(
        f"views.large.count is {count} but method.name is "
        f"{self.config.name!r}, which assigns 2 large crops: set it to 2."
      )
    return crops

  def init(
    self, key: jax.Array, views: data.Views, facts: base.Facts
  ) -> tuple[Any, Any]:
    """Draws the encoder, and prototypes in random directions."""
    params, batch_stats = super().init(key, views, facts)
    shape = (self.config.num_prototypes, self.encoder.projection.output_dim)
    prototypes = jax.random.normal(
      jax.random.fold_in(key, 1), shape, jax.tree.leaves(params)[0].dtype
    )
    params = {**params, PROTOTYPES: losses.normalize(prototypes)}
    return params, batch_stats

  def init_extra(
    self, key: jax.Array, params: Any, batch_stats: Any, facts: base.Facts
  ) -> dict[str, Any]:
    """Creates the empty queue [steps, batch, crops, D], if there is one."""
    del key, batch_stats
    steps = self.config.queue_size // facts.batch_size
    if not steps:
      return {}
    prototypes = params[PROTOTYPES]
    shape = (steps, facts.batch_size, len(_ASSIGNED), prototypes.shape[1])
    return {"queue": jnp.zeros(shape, prototypes.dtype)}

  @property
  def extra_specs(self) -> Any:
    """Spreads the images of each step in the queue over the devices."""
    return mesh.spread(1)

  def param_labels(self, params: Any) -> Mapping[str, str]:
    """Leaves prototypes as they are in the first `freeze_steps` steps."""
    return {
      name: "delayed" if name == PROTOTYPES else "default" for name in params
    }

  @property
  def delay_steps(self) -> int:
    """Steps in which prototypes do not change."""
    return self.config.freeze_steps

  def encoder_variables(self, state: Any) -> dict[str, Any]:
    """Selects the encoder, without prototypes."""
    return {
      "params": _of_encoder(state.params),
      "batch_stats": state.batch_stats,
    }

  def loss(
    self,
    params: Any,
    batch_stats: Any,
    extra: Any,
    batch: data.Views,
    *,
    step: jax.Array,
    key: jax.Array | None,
  ) -> base.Output:
    """Computes the cross-entropy of predictions and assignments."""
    del key
    embeddings, batch_stats = self.encode_crops(params, batch_stats, batch)
    means, rows = self.swap(params, extra, embeddings.crops, step=step)
    means = encoding.device_means(means, self.axis_name)
    return base.Output(means["loss"], finished(means), batch_stats, rows=rows)

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
    """Normalizes the prototypes, and writes this step into the queue."""
    del batch_stats
    params = {**params, PROTOTYPES: losses.normalize(params[PROTOTYPES])}
    if "queue" not in extra:
      return params, extra
    slot = step % extra["queue"].shape[0]
    queue = tables.write_rows(
      extra["queue"], slot[None], rows[None], finite=finite
    )
    return params, {**extra, "queue": queue}

  def encode_crops(
    self, params: Any, batch_stats: Any, batch: data.Views
  ) -> tuple[CropEmbeddings, Any]:
    """Encodes all crops, and the supports of a method that has them.

    Supports join the large crops in the trunk, and all crops in the head.

    Args:
      params: of encoder and prototypes.
      batch_stats: of the encoder.
      batch: this device's views.

    Returns:
      The embeddings, and the updated statistics.
    """
    params = _of_encoder(params)
    supports = None
    if self.needs_support:
      supports = encoding.fold_views(encoding.supports(batch))
    support_mask = encoding.support_views_mask(batch)
    features, masks = [], []
    for name, crops in batch.crops.items():
      images = [encoding.fold_views(crops)]
      mask = None
      if name == "large" and supports is not None:
        if support_mask is not None:
          every = jnp.ones(images[0].shape[0], bool)
          mask = jnp.concatenate([support_mask, every])
        images = [supports, *images]
      rows, batch_stats = encoding.apply_training(
        self.encoder,
        params,
        batch_stats,
        images,
        mask=mask,
        remat=self.remat,
        method="features",
      )
      # Each kind of rows is divided into chunks by itself.
      ends = [images[0].shape[0]] if len(images) > 1 else []
      features += jnp.split(rows, ends)
      masks.append(jnp.ones(rows.shape[0], bool) if mask is None else mask)
    (_, z), batch_stats = encoding.apply_training(
      self.encoder,
      params,
      batch_stats,
      features,
      mask=None if support_mask is None else jnp.concatenate(masks),
      remat="none",
      method="project",
    )
    count = 0 if supports is None else supports.shape[0]
    crops = _by_view(z[count:], batch.crops.values())
    own = None if supports is None else z[:count]
    return CropEmbeddings(crops, own), batch_stats

  def swap(
    self, params: Any, extra: Any, embeddings: jax.Array, *, step: jax.Array
  ) -> tuple[dict[str, jax.Array], jax.Array]:
    """Computes this device's part of the loss and of its metrics.

    Args:
      params: of encoder and prototypes.
      extra: of the state; this device's part of the queue.
      embeddings: [V, b, D].
      step: steps taken before this one.

    Returns:
      Values whose means over the devices are those of the batch, and the rows
      [b, crops, D] that enter the queue.
    """
    config, queue = self.config, None
    queue_is_full: jax.Array | bool = True
    if "queue" in extra:
      # [steps, b, crops, D] -> [crops, steps · b, D].
      queue = jnp.moveaxis(extra["queue"], 2, 0)
      queue = queue.reshape(len(_ASSIGNED), -1, queue.shape[-1])
      queue_is_full = step >= self._full_from(extra["queue"].shape[0])
    prototypes = params[PROTOTYPES]
    num_crops, _, width = embeddings.shape
    scores = swav_loss.crop_scores(
      embeddings.reshape(-1, width), prototypes, num_crops=num_crops
    )
    assignments = swav_loss.swav_assignments(
      scores,
      prototypes,
      epsilon=config.epsilon,
      num_iterations=config.num_iterations,
      queue=queue,
      assigned=_ASSIGNED,
      axis_name=self.axis_name,
      queue_is_full=queue_is_full,
    )
    loss = swav_loss.swapped_cross_entropy(
      scores,
      assignments,
      temperature=config.temperature,
      assigned=_ASSIGNED,
    )
    means = {
      "loss": loss,
      "assignment_kl": loss + jnp.mean(losses.negative_entropy(assignments)),
    }
    if config.health_metrics:
      first = jnp.argmax(assignments, axis=-1)
      chosen = jax.nn.one_hot(first, config.num_prototypes, dtype=loss.dtype)
      means[_CHOSEN] = jnp.mean(chosen, axis=(0, 1))
      means |= collapse.metrics(embeddings[0], self.axis_name)
    large = jax.lax.stop_gradient(embeddings[jnp.asarray(_ASSIGNED)])
    return means, losses.normalize(large).swapaxes(0, 1)

  def _full_from(self, num_steps: int) -> int:
    """Returns the step from which on a queue of so many steps is full."""
    first = self.config.queue_from_epochs * self.facts.steps_per_epoch
    # Later ones do not exist, and steps are compared in 32 bits.
    return min(round(first) + num_steps, fields.LARGEST_INTEGER)


def finished(means: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
  """Converts metrics averaged over the devices to scalars.

  Returns:
    The same metrics, but "prototypes_used", the share of prototypes that are
    the first choice of one of the step's crops, in place of their shares.
  """
  scalars = dict(means)
  if _CHOSEN in scalars:
    shares = scalars.pop(_CHOSEN)
    scalars["prototypes_used"] = jnp.mean(shares > 0, dtype=shares.dtype)
  return scalars


def _by_view(z: jax.Array, crops: Iterable[jax.Array]) -> jax.Array:
  """Reorders rows of crops [b, V_i, ...], each image-major, to [V, b, D]."""
  views, first = [], 0
  for images in crops:
    num_images, num_views = images.shape[:2]
    rows = z[first : first + num_images * num_views]
    views.append(rows.reshape(num_images, num_views, -1).swapaxes(0, 1))
    first += num_images * num_views
  return jnp.concatenate(views)


def _of_encoder(params: Mapping[str, Any]) -> dict[str, Any]:
  return {name: value for name, value in params.items() if name != PROTOTYPES}
