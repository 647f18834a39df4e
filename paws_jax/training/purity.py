"""Purity: how many neighbours that attract an image are of its true class.

Of methods that move images to others, by the labels of the data set, as far as
it has any: also those that a run does not use, and those that
`data.label_noise` hides from it. They are only for monitoring: neither the loss
nor any decision depends on them, and no train step calls this.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from paws_jax.methods import memory_bank
from paws_jax.parallel import mesh as mesh_lib
from paws_jax.training import experiment as experiment_lib
from paws_jax.training import state as state_lib


class Purity:
  """Computes the purity of states of one run; compiles it once."""

  def __init__(self, experiment: experiment_lib.Experiment):
    """Puts the true labels on the devices, if the method needs them."""
    trainer = experiment.trainer
    self._method = trainer.method
    self._compiled: Any = None
    labels = experiment.dataset.true_labels
    if not self._method.has_members or (labels < 0).all():
      return
    self._labels = mesh_lib.replicate(labels.astype(np.int32), trainer.mesh)
    self._compiled = jax.jit(
      mesh_lib.shard_map(
        self._of_devices,
        trainer.mesh,
        in_specs=(
          self._method.extra_specs,
          mesh_lib.REPLICATED,
          mesh_lib.REPLICATED,
        ),
        out_specs=mesh_lib.REPLICATED,
      )
    )

  def __call__(
    self, state: state_lib.TrainState, step: int
  ) -> dict[str, float]:
    """Measures the images of the last step.

    Clusters that were replaced after that step count as they are now: those to
    which the next steps limit the neighbours.

    Args:
      state: after `step` steps.
      step: at least 1.

    Returns:
      {"purity": a fraction}; empty where no label is known, or the method moves
      images to no others.
    """
    if self._compiled is None:
      return {}
    found = float(self._compiled(state.extra, self._labels, jnp.int32(step)))
    return {"purity": found} if np.isfinite(found) else {}

  def _of_devices(
    self, extra: Any, labels: jax.Array, step: jax.Array
  ) -> jax.Array:
    members = self._method.members(extra, step=step)
    return purity(members, labels, axis_name=self._method.axis_name)


def purity(
  members: memory_bank.Members, labels: jax.Array, *, axis_name: Any
) -> jax.Array:
  """Computes the mean share of members with the true class of their query.

  An image's own row counts, as in the public code of MSF and CMSF.

  Args:
    members: of a step; this device's rows.
    labels: [num_images] integers; negative: not known, and left out.
    axis_name: mesh axes, or None outside `shard_map`.

  Returns:
    A scalar, the same on all devices; NaN where nothing is known.
  """
  own = labels[members.queries][:, None]
  rows = jnp.where(members.rows >= 0, labels[members.rows], -1)[None, :]
  known = members.chosen & (own >= 0) & (rows >= 0)
  counts = jnp.stack([jnp.sum(known & (own == rows), 1), jnp.sum(known, 1)])
  if axis_name is not None:
    counts = jax.lax.psum(counts, axis_name)
  pure, all_known = counts
  shares = pure / jnp.maximum(all_known, 1)
  return jnp.sum(shares) / jnp.sum(all_known > 0)
