"""MSF: a view moves to the mean of another's nearest targets (2021)."""

from __future__ import annotations

import dataclasses
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp

from paws_jax import data
from paws_jax import losses
from paws_jax.losses import mean_shift
from paws_jax.methods import base
from paws_jax.methods import collapse
from paws_jax.methods import encoding
from paws_jax.methods import memory_bank
from paws_jax.methods import target_network
from paws_jax.parallel import mesh


class Neighbours(NamedTuple):
  """Rows of the bank near this device's targets, and new rows for it."""

  # Means of the chosen rows, [b, D], of each term of the loss by name.
  means: dict[str, jax.Array]
  # What is written into the bank: [b, ...] for each of its arrays.
  new: dict[str, jax.Array]
  # This device's means of numbers about the choice.
  metrics: dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Msf(target_network.WithTarget):
  """The first view is the query, the target network sees the second one.

  The targets of the step are in the bank before it is searched: an image's own
  is always the nearest.
  """

  shown_losses = ("mean_shift",)

  def init_extra(
    self, key: jax.Array, params: Any, batch_stats: Any, facts: base.Facts
  ) -> dict[str, Any]:
    """Copies the network, and makes an empty bank."""
    bank = memory_bank.create(
      self.config.bank_size,
      facts.batch_size,
      self.encoder.projection.output_dim,
      jax.tree.leaves(params)[0].dtype,
    )
    return {
      **super().init_extra(key, params, batch_stats, facts),
      "bank": bank,
    }

  @property
  def extra_specs(self) -> Any:
    """Every device holds the rows of its own images of each batch."""
    return {
      target_network.TARGET: mesh.REPLICATED,
      "bank": mesh.spread(1),
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
    """Computes the distances of queries and means of nearest targets."""
    del key
    queries, targets = encoding.pair_of_views(batch)
    _, queries, batch_stats = self.encode_online(params, batch_stats, queries)
    targets, batch_stats = self.encode_target(extra, batch_stats, targets)
    targets = losses.normalize(targets)
    assert batch.ids is not None
    found = self.neighbours(extra, targets, batch.ids, step)
    terms = {
      name: jnp.mean(mean_shift.shift_rows(queries, means))
      for name, means in found.means.items()
    }
    total: Any = sum(terms.values())
    terms["mean_shift"] = total / len(terms)
    if self.config.health_metrics:
      terms |= found.metrics | collapse.metrics(targets, self.axis_name)
    means = encoding.device_means(terms, self.axis_name)
    metrics = {"loss": means["mean_shift"]} | means
    return base.Output(metrics["loss"], metrics, batch_stats, rows=found.new)

  def neighbours(
    self, extra: Any, targets: jax.Array, ids: jax.Array, step: jax.Array
  ) -> Neighbours:
    """Searches the bank, with this step's targets in it; see `loss`.

    Args:
      extra: of the state; of the bank this device's part.
      targets: [b, D] unit rows, this device's.
      ids: [b], their images.
      step: steps taken before this one.
    """
    new = {"rows": targets, "index": ids}
    search = self.search(extra["bank"], new, step)
    slots = search.nearest(self.config.k)
    return Neighbours(
      {"unconstrained": search.means(slots)}, new, {"members": count(slots)}
    )

  def members(self, extra: Any, *, step: jax.Array) -> memory_bank.Members:
    """Searches once more with the targets of the last step."""
    bank, last = extra["bank"], step - 1
    new = memory_bank.last_batch(bank, step)
    search = self.search(bank, new, last)
    return memory_bank.Members(
      memory_bank.gather(new["index"], self.axis_name),
      bank["index"].reshape(-1),
      self.chosen(extra, new, search, last),
    )

  def chosen(
    self,
    extra: Any,
    new: dict[str, jax.Array],
    search: memory_bank.Search,
    step: jax.Array,
  ) -> jax.Array:
    """Selects the rows that the targets of a step move queries to.

    With a constraint, those of the constrained term.

    Args:
      extra: of the state.
      new: what the bank holds of the step's targets.
      search: with them in the bank.
      step: steps taken before that one.

    Returns:
      [B, M] bool, of the targets of all devices and this device's rows.
    """
    del extra, new, step
    return search.mask(search.nearest(self.config.k))

  def search(
    self, bank: memory_bank.Bank, new: dict[str, jax.Array], step: jax.Array
  ) -> memory_bank.Search:
    """Makes a search among the rows of the bank that are not empty."""
    valid = memory_bank.column(bank, "index", new["index"], step) >= 0
    return memory_bank.Search.create(
      bank["rows"],
      new["rows"],
      valid,
      memory_bank.batch_of(bank, step),
      self.axis_name,
    )

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
    """Moves the average, and writes this step's targets into the bank."""
    params, extra = super().after_update(
      params, batch_stats, extra, rows, step=step, finite=finite
    )
    bank = memory_bank.write(extra["bank"], rows, step, finite=finite)
    return params, {**extra, "bank": bank}


def count(slots: jax.Array) -> jax.Array:
  """Averages the number of chosen rows: [b, k] -> scalar."""
  return jnp.mean(jnp.sum(slots >= 0, axis=-1, dtype=jnp.float32))
