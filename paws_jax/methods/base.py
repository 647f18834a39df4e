"""The contract between a method and the train step, with its defaults.

A method is a frozen dataclass derived from `Method`. It needs `views` and
`loss`; the other hooks have defaults for a method that carries nothing but the
parameters and the batch statistics of its encoder. docs/adding_a_method.md adds
one step by step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import ClassVar
from typing import NamedTuple

import jax
import numpy as np

from paws_jax import config as config_lib
from paws_jax import data
from paws_jax.methods import encoding
from paws_jax.methods import memory_bank
from paws_jax.parallel import mesh


@dataclasses.dataclass(frozen=True)
class Facts:
  """Facts about the data that a method may use before training starts.

  Attributes:
    num_images: training images, numbered by their ids 0 ... num_images - 1.
    num_classes: classes of the data set.
    class_counts: labelled images of each class; None where only shapes matter.
    batch_size: unlabelled images of a step.
    steps_per_epoch: train steps of an epoch.
    total_steps: train steps of the run; more after `train.epochs` has grown.
    labels: int32 [num_images] that training may use, -1 of others; or None.
    include_labelled: whether images with a label are unlabelled ones, too.
  """

  num_images: int = 0
  num_classes: int = 0
  class_counts: tuple[int, ...] | None = None
  batch_size: int = 1
  steps_per_epoch: int = 1
  total_steps: int = 1
  labels: np.ndarray | None = dataclasses.field(
    default=None, compare=False, repr=False
  )
  include_labelled: bool = True


class Output(NamedTuple):
  """The result of a method's loss for one device's rows."""

  # Global scalar; differentiated. May be negative.
  loss: jax.Array
  # Global scalars, "loss" and `shown_losses` among them.
  metrics: dict[str, jax.Array]
  # The updated batch statistics, the same on all devices.
  batch_stats: Any
  # A pytree of arrays for `after_update`. Their first axis is that of this
  # device's images ([b, ...], image-major) or supports (padding included); the
  # global arrays are then in the order of the batch. Not differentiated.
  rows: Any = ()


@dataclasses.dataclass(frozen=True)
class Method:
  """A training method: the loss of a step, and the state it needs.

  Attributes:
    config: the method's section of the recipe.
    encoder: `models.Encoder`.
    label_smoothing: of the support labels.
    remat: recomputation of activations, as in section `train`.
    axis_name: mesh axes over which the loss communicates; None outside
      `shard_map`.
    facts: of the data and the run, for schedules; those of `init`.
    shown_losses: names of the metrics that are printed and plotted as the loss;
      each is at least 0, and 0 is best.
    needs_support: whether a step has labelled images.
  """

  shown_losses: ClassVar[tuple[str, ...]] = ()
  needs_support: ClassVar[bool] = True

  config: Any = None
  encoder: Any = None
  label_smoothing: float = 0.0
  remat: str = "none"
  axis_name: Any = None
  facts: Facts = Facts()

  @staticmethod
  def fields_of_data(
    config: Any,
    *,
    num_classes: int | None,
    class_counts: Sequence[int] | None,
  ) -> dict[str, Any]:
    """Returns fields of the method, beside the usual ones, made of the data.

    Args:
      config: the method's section.
      num_classes: classes of the data set; None: not known, and not checked.
      class_counts: labelled images of each class; None: not known.

    Raises:
      InputError: the section does not fit the data.
    """
    del config, num_classes, class_counts
    return {}

  def views(self, section: config_lib.Views) -> dict[str, config_lib.ViewSpec]:
    """Selects the crops that the method needs of each unlabelled image.

    They are numbered in the order of the mapping, which must not change: the
    random keys of a view derive from its number.

    Raises:
      errors.InputError: when the recipe's crops do not fit the method.
    """
    raise NotImplementedError

  def loss(
    self,
    params: Any,
    batch_stats: Any,
    extra: Any,
    batch: data.Views,
    *,
    step: jax.Array,
    key: jax.Array | None,
  ) -> Output:
    """Computes the loss of one step; runs inside `shard_map`.

    Args:
      params: parameters, the same on all devices.
      batch_stats: batch statistics, the same on all devices.
      extra: the method's other state; of arrays sharded over devices, this
        device's shard.
      batch: this device's views; contract in `paws_jax.data`.
      step: int32 scalar, steps taken before this one.
      key: for random draws; the same on all devices. Fold in an image's id,
        never its place in the batch.
    """
    raise NotImplementedError

  def init(
    self, key: jax.Array, views: data.Views, facts: Facts
  ) -> tuple[Any, Any]:
    """Draws initial parameters and batch statistics.

    Args:
      key: PRNG key.
      views: global views of zeros, for their shapes.
      facts: of the data.
    """
    del facts
    crops = next(iter(views.crops.values()), views.support)
    assert crops is not None
    return encoding.init_encoder(self.encoder, key, crops[:, 0])

  def init_extra(
    self, key: jax.Array, params: Any, batch_stats: Any, facts: Facts
  ) -> Any:
    """Creates the method's other state, next to the parameters.

    Called after `model.init_from` has set the parameters, so copies of
    parameters start from it. Tables have their logical number of rows; the
    trainer pads those that `extra_specs` shards with zeros to a multiple of the
    devices.
    """
    del key, params, batch_stats, facts
    return {}

  @property
  def extra_specs(self) -> Any:
    """PartitionSpecs of `extra`, as a prefix of its tree.

    `mesh.BATCH` spreads the rows of a table over the devices, `mesh.spread`
    another axis.
    """
    return mesh.REPLICATED

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
    """Updates averages, queues and other state after the optimizer.

    Runs outside `shard_map`, on global arrays, after the optimizer. Writes to
    `extra` must be dropped where `finite` is False (`methods.tables` has the
    operations); the train step restores the rest of the state itself.

    Args:
      params: after the update, or before it where `finite` is False.
      batch_stats: after the update, or before it where `finite` is False.
      extra: before the update.
      rows: `Output.rows` as global arrays, in the order of the batch.
      step: steps taken before this one.
      finite: bool scalar, whether loss, gradient and update are finite.

    Returns:
      (params, extra).
    """
    del batch_stats, rows, step, finite
    return params, extra

  def step(
    self,
    trainer: Any,
    state: Any,
    batch: data.Views,
    gradient_step: Callable[[Any, Any, data.Views], tuple[Any, Any]],
  ) -> tuple[Any, dict[str, jax.Array]]:
    """Takes one step; a method with two networks overrides it.

    Args:
      trainer: `training.state.Trainer`: optimizer, mesh, seed.
      state: `training.state.TrainState` before the step.
      batch: global views.
      gradient_step: the default, one gradient step on `loss`.

    Returns:
      The state after the step, and metrics with "loss", "grad_norm" and
      "update_norm".
    """
    return gradient_step(trainer, state, batch)

  def on_epoch_end(
    self, state: Any, embed: Callable[..., np.ndarray], *, step: int
  ) -> Any:
    """Changes the state between epochs: clustering, pseudo-label heads.

    Called before the first step, after every epoch, and within each epoch after
    `steps_within_epoch`, by all processes, with the same arguments in a resumed
    run. Overriding it makes `train.steps_per_call` divide these steps. Tables
    may be returned with their logical number of rows.

    Args:
      state: `training.state.TrainState`.
      embed: computes embeddings [n, D] float32 of all training images by their
        ids, NaN for unreadable ones; with trunk=True features of the trunk.
      step: steps taken.

    Returns:
      The state to continue with.
    """
    del embed, step
    return state

  @property
  def acts_between_epochs(self) -> bool:
    """Whether `on_epoch_end` is overridden."""
    return type(self).on_epoch_end is not Method.on_epoch_end

  def steps_within_epoch(self, steps_per_epoch: int) -> tuple[int, ...]:
    """Returns steps of an epoch before its last with `on_epoch_end`: none.

    Counted from 1, in increasing order.
    """
    del steps_per_epoch
    return ()

  @property
  def has_members(self) -> bool:
    """Whether images move to rows of a bank: `members` is overridden."""
    return type(self).members is not Method.members

  def members(self, extra: Any, *, step: jax.Array) -> memory_bank.Members:
    """Selects what the last step's images were moved to; inside `shard_map`.

    For monitoring alone: `training.purity` compares true labels with it.

    Args:
      extra: the method's state; of arrays that are spread, this device's part.
      step: int32 scalar, steps taken, at least 1.
    """
    raise NotImplementedError

  def encoder_variables(self, state: Any) -> dict[str, Any]:
    """Selects the encoder that evaluation and classifiers use.

    It only selects: `model.init_from` of another run calls it on a state of
    nested dictionaries, without an encoder, to know which arrays to read.

    Args:
      state: anything with `params`, `batch_stats` and `extra`.

    Returns:
      {"params", "batch_stats"} of `models.Encoder`, without other parameters.
    """
    return {"params": state.params, "batch_stats": state.batch_stats}

  def load_encoder(
    self, params: Any, batch_stats: Any, variables: Mapping[str, Any]
  ) -> tuple[Any, Any]:
    """Puts the weights of `model.init_from` into the initial state.

    Args:
      params: random parameters.
      batch_stats: initial batch statistics.
      variables: weights, as `encoder_variables` returns them.

    Returns:
      (params, batch_stats).
    """
    return (
      {**params, **variables["params"]},
      {**batch_stats, **variables["batch_stats"]},
    )

  def head(self, state: Any) -> Mapping[str, Any] | None:
    """Selects a linear classifier that replaces the vote of labelled images.

    Saved classifiers, predictions and exports use it; it stands on the features
    of `models.encoder.head_features`. Evaluation measures the vote of the
    labelled images by the same encoder.

    Returns:
      {"kernel" [d, K], "bias" [K]}; None: labelled images vote.
    """
    del state
    return None

  def param_labels(self, params: Any) -> Any:
    """Assigns parameters to groups of the optimizer.

    Returns:
      A tree of names, a prefix of `params`: "default", "constant_lr" (the
      recipe's optimizer at its peak rate throughout), "delayed" (unchanged in
      the first `delay_steps` steps) or "frozen"; None: all are "default".
    """
    del params

  @property
  def delay_steps(self) -> int:
    """Steps in which "delayed" parameters do not change, nor their momentum."""
    return 0
