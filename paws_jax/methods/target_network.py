"""A second network that follows the trained one: its target network.

It has the trunk and the projection head, but no prediction head. Its parameters
are an exponential moving average of the trained ones; it runs in training mode,
so that its running statistics come from its own images. The average moves after
a step from the parameters after it: a step's targets are those of the start of
the step in the references.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from paws_jax import config as config_lib
from paws_jax import data
from paws_jax.methods import base
from paws_jax.methods import encoding
from paws_jax.methods import tables

# Key of the target's batch statistics among those of the trained network, and
# of its parameters in `extra`.
TARGET = "target"


@dataclasses.dataclass(frozen=True)
class WithTarget(base.Method):
  """A method whose targets are computed by a moving average of the network."""

  needs_support = False

  def momentum(self, step: jax.Array) -> jax.Array | float:
    """Returns the weight of the old average in the update after a step.

    The constant `method.momentum`.
    """
    del step
    return self.config.momentum

  def views(self, section: config_lib.Views) -> dict[str, config_lib.ViewSpec]:
    """Returns two large crops; small ones are refused."""
    return encoding.two_crops(section, method_name=self.config.name)

  def init(
    self, key: jax.Array, views: data.Views, facts: base.Facts
  ) -> tuple[Any, Any]:
    """Draws the encoder, whose statistics the target network starts with."""
    params, batch_stats = super().init(key, views, facts)
    return params, self._with_target(batch_stats, batch_stats)

  def load_encoder(
    self, params: Any, batch_stats: Any, variables: Mapping[str, Any]
  ) -> tuple[Any, Any]:
    """Puts weights into the encoder, and their statistics into the target."""
    params, batch_stats = super().load_encoder(params, batch_stats, variables)
    return params, self._with_target(batch_stats, variables["batch_stats"])

  def init_extra(
    self, key: jax.Array, params: Any, batch_stats: Any, facts: base.Facts
  ) -> dict[str, Any]:
    """Copies the parameters of trunk and projection head."""
    del key, batch_stats, facts
    return {TARGET: without_prediction(params)}

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
    """Moves the average of the parameters."""
    del batch_stats, rows
    average = tables.ema(
      extra[TARGET],
      without_prediction(params),
      momentum=self.momentum(step),
      finite=finite,
    )
    return params, {**extra, TARGET: average}

  def encoder_variables(self, state: Any) -> dict[str, Any]:
    """Selects the trained network."""
    stats = {k: v for k, v in state.batch_stats.items() if k != TARGET}
    return {"params": state.params, "batch_stats": stats}

  def encode_online(
    self, params: Any, batch_stats: Any, images: jax.Array
  ) -> tuple[jax.Array, jax.Array, Any]:
    """Encodes one BatchNorm batch by the trained network; see `encode`.

    Args:
      params: of the encoder.
      batch_stats: of both networks.
      images: [n, H, W, C].

    Returns:
      h and z [n, D], and the statistics of both networks.
    """
    own = {k: v for k, v in batch_stats.items() if k != TARGET}
    h, z, own = encoding.encode(
      self.encoder, params, own, images, remat=self.remat
    )
    return h, z, {**own, TARGET: batch_stats[TARGET]}

  def encode_target(
    self, extra: Any, batch_stats: Any, images: jax.Array
  ) -> tuple[jax.Array, Any]:
    """Encodes one BatchNorm batch by the target network, without gradient.

    Args:
      extra: of the state.
      batch_stats: of both networks.
      images: [n, H, W, C].

    Returns:
      h [n, D], and the statistics of both networks.
    """
    h, _, own = encoding.encode(
      self.encoder.clone(prediction=None),
      extra[TARGET],
      batch_stats[TARGET],
      images,
    )
    return jax.lax.stop_gradient(h), {
      **batch_stats,
      TARGET: jax.lax.stop_gradient(own),
    }

  def _with_target(self, batch_stats: Any, encoder_stats: Any) -> Any:
    """Adds the statistics of trunk and projection as those of the target."""
    stats = jax.tree.map(jnp.copy, without_prediction(encoder_stats))
    return {**batch_stats, TARGET: stats}


def without_prediction(variables: Mapping[str, Any]) -> dict[str, Any]:
  """Selects trunk and projection head."""
  return {
    name: variables[name]
    for name in ("trunk", "projection")
    if name in variables
  }
