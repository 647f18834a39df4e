"""PAWS: predicting view assignments with support samples (2021)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from paws_jax import config as config_lib
from paws_jax import data
from paws_jax import errors
from paws_jax import losses
from paws_jax.config.methods import paws as paws_config
from paws_jax.methods import base
from paws_jax.methods import class_prior
from paws_jax.methods import device_losses
from paws_jax.methods import encoding
from paws_jax.methods import health_metrics
from paws_jax.parallel import gather


class Encoded(NamedTuple):
  """Embeddings of a step: h for targets, z for anchors."""

  local: encoding.Embeddings
  # [(L + M)·b, D] of this device's anchors, view-major.
  z_views: jax.Array
  # [L·b, D]; swapped when there are two.
  h_targets: jax.Array
  # [N·V, D] of all devices.
  z_support: jax.Array
  h_support: jax.Array
  # [devices · L·b, D], [devices · 2·b, D]: embeddings of all devices, without
  # gradient; None where they are not needed.
  h_large: jax.Array | None
  z_pairs: jax.Array | None


class Targets(NamedTuple):
  """Targets of the anchors' predictions."""

  # [(L + M)·b, C].
  probs: jax.Array
  # [(L + M)·b] weights in the cross-entropy; None: all 1.
  weights: jax.Array | None
  # Means over this device's images.
  metrics: dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Paws(base.Method):
  """Trains views of an image to get the same soft label from the supports.

  Section 3 of the paper. With a prediction head, its outputs z embed anchors
  and their supports, with gradient to both; its inputs h embed targets and
  their supports, without gradient.
  """

  shown_losses = ("cross_entropy", "me_max_kl")

  # Prior of every class of the data; None: uniform.
  prior: tuple[float, ...] | None = None

  def views(self, section: config_lib.Views) -> dict[str, config_lib.ViewSpec]:
    """Returns at least two large crops, and small ones if there are any."""
    crops = encoding.known_crops(
      section, ("large", "small"), method_name=self.config.name
    )
    count = crops["large"].count if "large" in crops else 0
    if count < 2:
      raise errors.InputError(
        f"views.large.count is {count}: {self.config.name} compares at least 2 "
        "large crops of an image."
      )
    return crops

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
    """Computes the cross-entropy of views plus me-max; see `losses.paws_loss`.

    Args:
      params: encoder parameters.
      batch_stats: batch statistics.
      extra: of `init_extra`.
      batch: this device's views.
      step: unused; PAWS has no schedule of its own.
      key: unused; PAWS draws no random numbers.
    """
    del step, key
    config = self.config
    encoded, batch_stats = self._encode(params, batch_stats, batch)
    rows = encoding.support_rows(batch, smoothing=self.label_smoothing)
    probs = losses.soft_nearest_neighbours(
      encoded.z_views,
      encoded.z_support,
      rows,
      temperature=config.temperature,
      num_blocks=encoding.num_blocks(self.encoder),
    )
    targets = self._targets(encoded, rows, batch)
    cross_entropy, regularizer = losses.paws_objective(
      probs,
      targets.probs,
      weights=targets.weights,
      prior=self._step_prior(batch, extra),
      sharpen_temperature=config.sharpen_temperature,
      me_max=True,
      axis_name=self.axis_name,
    )
    means = self._means(encoded, probs, targets, batch)
    loss = cross_entropy
    if config.me_max:
      loss += regularizer
    if config.support_loss_weight:
      loss += config.support_loss_weight * means["support_loss"]
    if config.entropy_loss_weight:
      loss += config.entropy_loss_weight * means["entropy"]
    metrics = {
      "loss": loss,
      "cross_entropy": cross_entropy,
      # KL(mean prediction ‖ prior): me-max, shifted to reach zero.
      "me_max_kl": math.log(probs.shape[-1]) + regularizer,
    }
    metrics |= health_metrics.finished(means)
    return base.Output(loss, metrics, batch_stats)

  @property
  def _gathers_targets(self) -> bool:
    """Whether `_targets` reads the large views of all devices."""
    return False

  def _targets(
    self, encoded: Encoded, rows: jax.Array, batch: data.Views
  ) -> Targets:
    """Computes the anchors' targets from predictions of the opposite views."""
    stop = jax.lax.stop_gradient
    large = losses.soft_nearest_neighbours(
      stop(encoded.h_targets),
      stop(encoded.h_support),
      rows,
      temperature=self.config.temperature,
      num_blocks=encoding.num_blocks(self.encoder),
    )
    return Targets(self._targets_of(large, batch), None, {})

  def _targets_of(self, large: jax.Array, batch: data.Views) -> jax.Array:
    """Sharpens and repeats predictions; see `losses.paws_targets`."""
    small = batch.crops.get("small")
    return losses.paws_targets(
      large,
      num_small_crops=0 if small is None else small.shape[1],
      num_large_crops=batch.crops["large"].shape[1],
      sharpen_temperature=self.config.sharpen_temperature,
    )

  def _step_prior(self, batch: data.Views, extra: Any) -> jax.Array | None:
    """Returns the prior [C] of the classes of this step; None: uniform."""
    given = extra["prior"] if self.acts_between_epochs else self.prior
    if given is None:
      return None
    prior = jnp.asarray(given, float)[batch.class_ids]
    return prior / jnp.sum(prior)

  def init_extra(
    self, key: jax.Array, params: Any, batch_stats: Any, facts: base.Facts
  ) -> Any:
    """Creates an estimated prior; other priors are no state."""
    del key, params, batch_stats
    return class_prior.initial(facts) if self.acts_between_epochs else {}

  @property
  def acts_between_epochs(self) -> bool:
    """Whether the prior is estimated."""
    return self.config.prior == "estimate"

  def on_epoch_end(
    self, state: Any, embed: Callable[..., np.ndarray], *, step: int
  ) -> Any:
    """Estimates the prior, at first from the labels alone."""
    if not self.acts_between_epochs:
      return state
    extra = class_prior.estimate(
      state.extra,
      embed,
      facts=self.facts,
      temperature=self.config.temperature,
      step=step,
    )
    return state.replace(extra=extra)

  def _means(
    self,
    encoded: Encoded,
    probs: jax.Array,
    targets: Targets,
    batch: data.Views,
  ) -> dict[str, jax.Array]:
    """Computes the metrics that are means, and the terms of the loss."""
    config = self.config
    confidence = jnp.mean(jnp.max(targets.probs, axis=-1))
    means = targets.metrics | {"target_confidence": confidence}
    if config.support_loss_weight:
      # An option of the paper (appendix E): a loss on the labels alone.
      means["support_loss"] = device_losses.support_loss(
        encoded.local.z_support,
        encoded.z_support,
        batch,
        temperature=config.temperature,
        smoothing=self.label_smoothing,
        axis_name=self.axis_name,
        num_blocks=encoding.num_blocks(self.encoder),
      )
    if config.entropy_loss_weight:
      means["entropy"] = -jnp.mean(losses.negative_entropy(probs))
    if config.health_metrics:
      assert encoded.z_pairs is not None
      means |= health_metrics.of_step(
        encoded.local,
        probs,
        batch,
        z_support=encoded.z_support,
        z_pairs=encoded.z_pairs,
        temperature=config.temperature,
        axis_name=self.axis_name,
        num_blocks=encoding.num_blocks(self.encoder),
      )
    return encoding.device_means(means, self.axis_name)

  def _encode(
    self,
    params: encoding.Params,
    batch_stats: encoding.BatchStats,
    batch: data.Views,
  ) -> tuple[Encoded, encoding.BatchStats]:
    """Encodes the step in two passes, as in the reference.

    Supports with large crops, then the small crops; each is one BatchNorm
    batch.
    """
    local, batch_stats = encoding.encode_supports_and_large(
      self.encoder, params, batch_stats, batch, remat=self.remat
    )
    z_views, h_targets = local.z_large, local.h_large
    if batch.crops["large"].shape[1] == 2:
      h_targets = jnp.roll(h_targets, h_targets.shape[0] // 2, axis=0)
    if "small" in batch.crops:
      _, z_small, batch_stats = encoding.encode(
        self.encoder,
        params,
        batch_stats,
        encoding.fold_views(batch.crops["small"]),
        remat=self.remat,
      )
      z_small = encoding.view_major(z_small, batch.crops["small"].shape[1])
      z_views = jnp.concatenate([z_views, z_small])
    encoded = Encoded(
      local=local,
      z_views=z_views,
      h_targets=h_targets,
      **self._gathered(local, batch),
    )
    return encoded, batch_stats

  def _gathered(
    self, local: encoding.Embeddings, batch: data.Views
  ) -> dict[str, Any]:
    """Gathers embeddings of all devices; with gradient only supports' z."""
    constants = {}
    if self.encoder.prediction is not None:
      constants["h_support"] = local.h_support
    if self._gathers_targets:
      constants["h_large"] = local.h_large
    if self.config.health_metrics:
      constants["z_pairs"] = local.z_large[: 2 * batch.crops["large"].shape[0]]
    z_support, *rest = gather.gather(
      [local.z_support], tuple(constants.values()), axis_name=self.axis_name
    )
    found = dict(zip(constants, rest, strict=True))
    # Without a head, h is z.
    h_support = found.get("h_support", z_support)
    return {
      "z_support": encoding.without_padding(z_support, batch),
      "h_support": encoding.without_padding(h_support, batch),
      "h_large": found.get("h_large"),
      "z_pairs": found.get("z_pairs"),
    }

  @staticmethod
  def fields_of_data(
    config: paws_config.Config,
    *,
    num_classes: int | None,
    class_counts: Sequence[int] | None,
  ) -> dict[str, Any]:
    """Returns the fields of the method that depend on the data.

    Args:
      config: section `method`.
      num_classes: of the data; None: not known, and not checked.
      class_counts: labelled images of each class; None: not known.

    Raises:
      errors.InputError: the length of a given prior is not the number of
        classes.
    """
    given = len(config.prior_probs)
    if config.prior == "given" and num_classes not in (None, given):
      raise errors.InputError(
        f"method.prior_probs has {given} numbers but the data has "
        f"{num_classes} classes: give one for each, in the order of the "
        "classes."
      )
    return {"prior": _prior(config, class_counts)}


def _prior(
  config: paws_config.Config, class_counts: Sequence[int] | None
) -> tuple[float, ...] | None:
  """Returns K positive numbers with sum 1; None for the uniform prior."""
  parts: Sequence[float] | None = config.prior_probs
  if config.prior == "labels":
    # None where only shapes matter.
    parts = class_counts
  if config.prior in ("uniform", "estimate") or parts is None:
    return None
  # The numbers of a recipe may be rounded.
  total = sum(parts)
  return tuple(part / total for part in parts)
