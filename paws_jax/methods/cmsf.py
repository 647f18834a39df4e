"""CMSF: mean shift to those of the nearest targets that are related (2022)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from paws_jax import errors
from paws_jax.losses import mean_shift
from paws_jax.methods import base
from paws_jax.methods import constraints
from paws_jax.methods import kmeans
from paws_jax.methods import memory_bank
from paws_jax.methods import msf
from paws_jax.methods import pseudo_label_head
from paws_jax.methods import tables
from paws_jax.parallel import mesh

_IMAGES_PER_CLUSTER = 25.6
# Of images without a label, and of rows and queries without a class.
NONE = -1
_WITH_LABELS = ("labels", "pseudo_labels")
# Their distance to all rows is the other half of the loss.
_WITHOUT_LABELS = ("second_query", "kmeans")


@dataclasses.dataclass(frozen=True)
class Cmsf(msf.Msf):
  """Mean shift within a constrained set of rows; see `config.methods.cmsf`.

  Without labels the loss is the mean of the distances to the nearest rows of
  the set and to the nearest of all; with labels it is the first alone. An image
  without a constraint, for want of a label or of an earlier embedding, moves to
  the nearest of all. Rows are never taken from outside of the set: where it has
  fewer than k, those there are are averaged.
  """

  @staticmethod
  def fields_of_data(
    config: Any,
    *,
    num_classes: int | None,
    class_counts: Sequence[int] | None,
  ) -> dict[str, Any]:
    """Refuses a constraint by labels for data without any."""
    del num_classes
    labelled = config.constraint in _WITH_LABELS
    if labelled and class_counts is not None and not sum(class_counts):
      raise errors.InputError(
        f"method.constraint is {config.constraint!r} but no training image "
        "has a label that is used: label some of each class, or set it to "
        "'kmeans' or 'second_query', which need none."
      )
    return {}

  def init_extra(
    self, key: jax.Array, params: Any, batch_stats: Any, facts: base.Facts
  ) -> dict[str, Any]:
    """Adds the tables that the constraint needs."""
    extra = super().init_extra(key, params, batch_stats, facts)
    constraint, rows = self.config.constraint, extra["bank"]["rows"]
    shape, dtype, count = rows.shape, rows.dtype, facts.num_images
    if constraint in _WITHOUT_LABELS:
      extra["latest"] = jnp.zeros((count, shape[-1]), dtype)
      extra["known"] = jnp.zeros(count, bool)
    if constraint == "second_query":
      extra["bank"] |= {
        "previous": jnp.zeros(shape, dtype),
        "has_previous": jnp.zeros(shape[:2], bool),
      }
    if constraint == "kmeans":
      self._num_clusters(facts)
      extra["cluster"] = jnp.full(count, NONE, jnp.int32)
    if constraint in _WITH_LABELS:
      labels = _labels(facts)
      extra["labels"] = jnp.asarray(labels)
      extra["bank"]["tag"] = jnp.full(shape[:2], NONE, jnp.int32)
    if constraint == "pseudo_labels":
      number = int(np.sum(labels >= 0))
      extra |= {
        "cache": jnp.zeros((number, shape[-1]), dtype),
        "filled": jnp.zeros(number, bool),
        "head": pseudo_label_head.create(
          key, shape[-1], facts.num_classes, dtype
        ),
        "head_trained": jnp.zeros((), bool),
      }
    if self.acts_between_epochs:
      extra["draws"] = jax.random.bits(key)
    return extra

  @property
  def extra_specs(self) -> Any:
    """Tables of embeddings are spread, numbers of each image are not."""
    replicated = {
      "kmeans": ("cluster", "draws"),
      "labels": ("labels",),
      "pseudo_labels": ("labels", "head", "head_trained", "draws"),
    }.get(self.config.constraint, ())
    spread = {
      "second_query": ("latest", "known"),
      "kmeans": ("latest", "known"),
      "pseudo_labels": ("cache", "filled"),
    }.get(self.config.constraint, ())
    return {
      **super().extra_specs,
      **dict.fromkeys(replicated, mesh.REPLICATED),
      **dict.fromkeys(spread, mesh.BATCH),
    }

  def neighbours(
    self, extra: Any, targets: jax.Array, ids: jax.Array, step: jax.Array
  ) -> msf.Neighbours:
    """Searches the bank within the constraint; see `Msf.neighbours`."""
    constraint = self.config.constraint
    if constraint == "none":
      return super().neighbours(extra, targets, ids, step)
    new = {"rows": targets, "index": ids}
    self._add_columns(extra, new)
    search = self.search(extra["bank"], new, step)
    if self.config.k == 0:
      return self._of_all_members(extra, new, step, search)
    slots, free = self._slots(extra, new, search, step)
    means = {"constrained": search.means(slots)}
    chosen = jnp.sum(slots >= 0, axis=-1)
    metrics = {
      "members": msf.count(slots),
      "alone": jnp.mean(chosen == 1, dtype=jnp.float32),
      "free": jnp.mean(free, dtype=jnp.float32),
    }
    if constraint in _WITHOUT_LABELS:
      means["unconstrained"] = search.means(search.nearest(self.config.k))
    return msf.Neighbours(means, new, metrics)

  def chosen(
    self,
    extra: Any,
    new: dict[str, jax.Array],
    search: memory_bank.Search,
    step: jax.Array,
  ) -> jax.Array:
    """Selects rows within the constraint; see `Msf.chosen`."""
    if self.config.constraint == "none":
      return super().chosen(extra, new, search, step)
    if self.config.k:
      return search.mask(self._slots(extra, new, search, step)[0])
    allowed, _ = self._allowed(extra, new, step)
    free = memory_bank.gather(new["tag"] < 0, self.axis_name)
    own = search.mask(search.nearest(1))
    allowed = jnp.where(free[:, None], own, allowed)
    return allowed & search.valid[None, :]

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
    """Writes this step's targets into the tables, too."""
    params, extra = super().after_update(
      params, batch_stats, extra, rows, step=step, finite=finite
    )
    ids = rows["index"]
    if "latest" in extra:
      names, places, size = ("latest", "known"), ids, self.facts.num_images
    elif "cache" in extra:
      # The row of a labelled image is the number of those before it.
      labels, size = extra["labels"], self._num_labelled
      place = jnp.cumsum(labels >= 0) - 1
      places = jnp.where(labels[ids] >= 0, place[ids], NONE)
      names = ("cache", "filled")
    else:
      return params, extra
    values = rows["rows"], jnp.ones(ids.shape, bool)
    written = {
      name: tables.write_rows(
        extra[name], places, value, finite=finite, num_rows=size
      )
      for name, value in zip(names, values, strict=True)
    }
    return params, {**extra, **written}

  @property
  def acts_between_epochs(self) -> bool:
    """Whether there are clusters or a head to be made."""
    return self.config.constraint in ("kmeans", "pseudo_labels")

  def steps_within_epoch(self, steps_per_epoch: int) -> tuple[int, ...]:
    """Returns the steps of rounds of the head before an epoch's last one."""
    if self.config.constraint != "pseudo_labels":
      return ()
    rounds = self.config.rounds_per_epoch
    return tuple(n * steps_per_epoch // rounds for n in range(1, rounds))

  def on_epoch_end(
    self, state: Any, embed: Callable[..., np.ndarray], *, step: int
  ) -> Any:
    """Clusters the table of embeddings, or trains the head."""
    del embed
    if step == 0:
      return state
    extra = state.extra
    key = jax.random.fold_in(jax.random.key(extra["draws"]), step)
    if self.config.constraint == "kmeans":
      cluster = kmeans.cluster_table(
        extra["latest"],
        extra["known"],
        key,
        num_clusters=self._num_clusters(self.facts),
        num_iterations=self.config.cluster_iterations,
      )
      new = {"cluster": mesh.everywhere(cluster)[: extra["cluster"].shape[0]]}
    else:
      new = self._round(extra, key)
    return state.replace(extra={**extra, **new})

  def logits(self, extra: Any, targets: jax.Array) -> jax.Array:
    """Computes the head's logits of unit targets."""
    return pseudo_label_head.logits(extra["head"], targets)

  def _add_columns(self, extra: Any, new: dict[str, jax.Array]) -> None:
    """Adds to this step's rows what the bank holds of each beside it."""
    ids = new["index"]
    if self.config.constraint == "second_query":
      new["previous"], new["has_previous"] = (
        tables.read_rows(extra[name], ids, axis_name=self.axis_name)
        for name in ("latest", "known")
      )
    if "labels" in extra:
      new["tag"] = extra["labels"][ids]
    if "head" in extra:
      new["tag"] = self._with_pseudo_labels(extra, new["rows"], new["tag"])

  def _slots(
    self,
    extra: Any,
    new: dict[str, jax.Array],
    search: memory_bank.Search,
    step: jax.Array,
  ) -> tuple[jax.Array, jax.Array]:
    """Finds the k nearest within the constraint; which targets have none."""
    allowed, free = self._allowed(extra, new, step)
    return search.nearest(self.config.k, allowed), free

  def _allowed(
    self, extra: Any, new: dict[str, jax.Array], step: jax.Array
  ) -> constraints.Constraint:
    """Returns the rows that each target may choose."""
    bank, axis_name = extra["bank"], self.axis_name
    if self.config.constraint == "second_query":
      k = self.config.k_previous
      return constraints.near_before(bank, new, step, k=k, axis_name=axis_name)
    if "cluster" in extra:
      index = memory_bank.column(bank, "index", new["index"], step)
      rows = jnp.where(index >= 0, extra["cluster"][index], NONE)
      own = extra["cluster"][new["index"]]
    else:
      own = new["tag"]
      rows = memory_bank.column(bank, "tag", own, step)
    return constraints.same_class(own, rows, axis_name=axis_name)

  def _with_pseudo_labels(
    self, extra: Any, targets: jax.Array, labels: jax.Array
  ) -> jax.Array:
    """Returns labels, and the head's class where it is sure: [b] int32."""
    probabilities = jax.nn.softmax(self.logits(extra, targets), axis=-1)
    sure = jnp.max(probabilities, axis=-1) >= self.config.threshold
    classes = jnp.argmax(probabilities, axis=-1).astype(labels.dtype)
    guesses = jnp.where(sure & extra["head_trained"], classes, NONE)
    return jax.lax.stop_gradient(jnp.where(labels >= 0, labels, guesses))

  def _of_all_members(
    self,
    extra: Any,
    new: dict[str, jax.Array],
    step: jax.Array,
    search: memory_bank.Search,
  ) -> msf.Neighbours:
    """Averages all rows of a label; an image without one moves to its own."""
    tags = memory_bank.column(extra["bank"], "tag", new["tag"], step)
    means = mean_shift.class_means(
      search.rows,
      jnp.where(search.valid, tags, NONE),
      new["tag"],
      num_classes=self.facts.num_classes,
      newest=search.newest,
      axis_name=self.axis_name,
    )
    free = new["tag"] < 0
    means = jnp.where(free[:, None], new["rows"], means)
    metrics = {"free": jnp.mean(free, dtype=jnp.float32)}
    return msf.Neighbours({"constrained": means}, new, metrics)

  def _round(self, extra: Any, key: jax.Array) -> dict[str, Any]:
    """Trains the head, the same on every device."""
    config, number = self.config, self._num_labelled
    cache = mesh.everywhere(extra["cache"])[:number]
    filled = mesh.everywhere(extra["filled"])[:number]
    labels = extra["labels"]
    orders = pseudo_label_head.draw_orders(key, filled, config.head_epochs)
    result = pseudo_label_head.train_round(
      extra["head"],
      cache,
      labels[jnp.nonzero(labels >= 0, size=number)[0]],
      filled,
      orders,
      batch_size=min(config.head_batch_size, number),
      learning_rate=config.head_lr,
      drops=tuple(config.head_drops),
    )
    return {
      "head": result.variables,
      "head_trained": extra["head_trained"] | result.trained,
    }

  @property
  def _num_labelled(self) -> int:
    return int(np.sum(_labels(self.facts) >= 0))

  def _num_clusters(self, facts: base.Facts) -> int:
    """Returns the number of clusters.

    Raises:
      errors.InputError: there are not so many images.
    """
    number = self.config.num_clusters
    if number > facts.num_images:
      raise errors.InputError(
        f"method.num_clusters is {number} but there are {facts.num_images} "
        "training images: make it smaller; 0 is one cluster for 25.6 images."
      )
    return number or max(1, round(facts.num_images / _IMAGES_PER_CLUSTER))


def _labels(facts: base.Facts) -> np.ndarray:
  """Returns the labels that training may know, -1 for others: int32 [n]."""
  if facts.labels is None:
    return np.zeros(facts.num_images, np.int32)
  return np.asarray(facts.labels, np.int32)
