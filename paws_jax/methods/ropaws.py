"""RoPAWS: PAWS for unlabelled images that may be of no known class (2023)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from paws_jax import data
from paws_jax.losses import ropaws
from paws_jax.methods import paws
from paws_jax.parallel import gather


@dataclasses.dataclass(frozen=True)
class Ropaws(paws.Paws):
  """PAWS with weights and targets that depend on being of a known class.

  Only `_targets` differs: targets come from a density of supports and
  unlabelled images (`losses.ropaws`). The less likely an image is to be of any
  of the classes, the nearer its target is to uniform, and the smaller its
  weight. Predictions, me-max and inference are those of PAWS.
  """

  @property
  def _gathers_targets(self) -> bool:
    return True

  def _targets(
    self, encoded: paws.Encoded, rows: jax.Array, batch: data.Views
  ) -> paws.Targets:
    kernels = jax.lax.stop_gradient(self._kernels(encoded, batch))
    posterior = ropaws.posteriors(
      kernels,
      rows,
      num_iterations=self.config.num_iterations,
      axis_name=self.axis_name,
    )
    large = ropaws.spread_missing(posterior)
    if batch.crops["large"].shape[1] == 2:
      # The target of a view comes from the opposite view.
      large = large[::-1]
    probs = self._targets_of(large.reshape(-1, large.shape[-1]), batch)
    known = jnp.mean(jnp.sum(posterior, axis=-1), axis=0)
    weights = jnp.tile(
      known**self.config.in_domain_power, len(probs) // len(known)
    )
    return paws.Targets(probs, weights, {"in_domain": jnp.mean(known)})

  def _kernels(self, encoded: paws.Encoded, batch: data.Views) -> ropaws.Kernel:
    """Computes kernels of all items for each large view: [L, b, ...]."""
    config = self.config
    assert encoded.h_large is not None
    num_local, num_large = batch.crops["large"].shape[:2]
    every = gather.by_view(
      encoded.h_large, num_views=num_large, num_local=num_local
    )
    local = encoded.local.h_large.reshape(num_large, num_local, -1)
    first: int | jax.Array = 0
    if self.axis_name is not None:
      first = jax.lax.axis_index(self.axis_name) * num_local
    weight = self._label_weight(every.shape[1], encoded.h_support, batch)
    kernels = [
      ropaws.kernel(
        local[i],
        every[i],
        encoded.h_support,
        first=first,
        temperature=config.temperature,
        prior_temperature=config.in_domain_temperature,
        label_weight=weight,
      )
      for i in range(num_large)
    ]
    return jax.tree.map(lambda *parts: jnp.stack(parts), *kernels)

  def _label_weight(
    self, num_unlabelled: int, supports: jax.Array, batch: data.Views
  ) -> float:
    """Computes the weight of supports, as in the paper or the released code."""
    config = self.config
    num_supports = supports.shape[0]
    if config.as_released:
      assert batch.support_labels is not None
      assert batch.class_ids is not None
      num_unlabelled = config.released_batch_size
      num_supports = len(batch.support_labels) // len(batch.class_ids)
    return ropaws.label_weight(
      config.label_mass_ratio,
      num_unlabelled=num_unlabelled,
      num_supports=num_supports,
    )
