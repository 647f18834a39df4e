"""A linear classifier on the encoder, trained on labels with all its weights.

The paper's fine-tuning on ImageNet (section 5, 2021): it stands on the trunk
and the first layer of the projection head, and starts at zero.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from paws_jax import config as config_lib
from paws_jax import data
from paws_jax import optim
from paws_jax.methods import base
from paws_jax.methods import encoding
from paws_jax.models import encoder as encoder_lib
from paws_jax.training import state as state_lib

# SwAV's fine-tuning of 20 epochs.
_DROP, _DROPS, _OF_EPOCHS = 0.2, (12, 16), 20


def add_head(
  params: Any, num_classes: int, *, num_features: int = 0
) -> dict[str, Any]:
  """Puts a linear layer of zeros beside an encoder's parameters.

  Args:
    params: of `models.Encoder`.
    num_classes: K.
    num_features: d, of the trunk, where there is no projection head.

  Returns:
    {"encoder": params, "head": {"kernel" [d, K], "bias" [K]}}: what
    `LinearHead` trains.
  """
  size = num_features
  if "projection" in params:
    layer = params["projection"][f"fc{encoder_lib.NUM_PROJECTION_LAYERS}"]
    size = layer["kernel"].shape[-1]
  head = {
    "kernel": jnp.zeros((size, num_classes), jnp.float32),
    "bias": jnp.zeros((num_classes,), jnp.float32),
  }
  return {"encoder": params, "head": head}


def groups(
  optimizer: optax.GradientTransformation, head_ratio: float
) -> optax.GradientTransformation:
  """Gives the linear layer a learning rate of its own.

  Args:
    optimizer: whose updates are proportional to its learning rate.
    head_ratio: the layer's rate, as a multiple of that of the encoder.
  """

  def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
    updates, state = optimizer.update(gradients, state, params)
    head = jax.tree.map(lambda u: head_ratio * u, updates["head"])
    return {**updates, "head": head}, state

  return optax.GradientTransformation(optimizer.init, update)


def with_drops(
  trainer: state_lib.Trainer,
  section: config_lib.Optim,
  *,
  epochs: int,
  steps_per_epoch: int,
) -> state_lib.Trainer:
  """Returns a trainer whose rate drops as in the public code of SwAV.

  Args:
    trainer: of a schedule that starts at 1.
    section: momentum of the recipe of the fine-tuning.
    epochs: length.
    steps_per_epoch: of the images.
  """
  rates = optim.epoch_drops(
    peak_lr=1.0,
    factor=_DROP,
    drops=_DROPS,
    of_epochs=_OF_EPOCHS,
    epochs=epochs,
    steps_per_epoch=steps_per_epoch,
  )
  optimizer = optim.sgd(
    rates,
    weight_decay=0.0,
    momentum=section.momentum,
    nesterov=section.nesterov,
    lr_in_momentum=section.lr_in_momentum,
  )
  return dataclasses.replace(trainer, optimizer=optimizer, schedule=rates)


@dataclasses.dataclass(frozen=True)
class LinearHead(base.Method):
  """Cross-entropy of the labelled images that stand as supports.

  It has no `init`: it starts from a trained encoder's parameters, to which
  `add_head` adds the layer's. The rest of the projection head and the
  prediction head stay among them, untouched.
  """

  shown_losses = ("cross_entropy",)

  def views(self, section: config_lib.Views) -> dict[str, config_lib.ViewSpec]:
    """Returns no crops: unlabelled images play no part."""
    del section
    return {}

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
    """Mean over the rows whose label is not -1; as `paws.Paws.loss` else.

    `batch.support_labels` has a label for every row of `batch.support`, with
    one view each.
    """
    del extra, step, key
    rows, batch_stats = encoding.apply_training(
      self.encoder,
      params["encoder"],
      batch_stats,
      encoding.fold_views(encoding.supports(batch)),
      mask=encoding.support_views_mask(batch),
      remat=self.remat,
      method="features",
      num_projection_layers=encoder_lib.NUM_PROJECTION_LAYERS,
    )
    loss, metrics = cross_entropy(
      params["head"], rows, batch, axis_name=self.axis_name
    )
    return base.Output(loss, metrics, batch_stats)


def cross_entropy(
  head: Any, features: jax.Array, batch: data.Views, *, axis_name: Any
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Computes the mean cross-entropy of a linear layer, and its metrics.

  Args:
    head: {"kernel" [d, K], "bias" [K]}.
    features: [n, d], of this device's rows of `batch.support`.
    batch: its labels; rows with label -1 do not count.
    axis_name: mesh axes; None: outside `shard_map`.
  """
  logits = jnp.matmul(
    features, head["kernel"], precision=jax.lax.Precision.HIGHEST
  )
  logits += head["bias"][None, :]
  # Every device has all labels, and now all logits.
  logits = encoding.gather_supports(logits, batch, axis_name)
  labels = batch.support_labels
  assert labels is not None
  counts = labels >= 0
  each = optax.softmax_cross_entropy_with_integer_labels(
    logits, jnp.maximum(labels, 0)
  )
  total = jnp.sum(counts)
  loss = jnp.sum(jnp.where(counts, each, 0)) / total
  right = counts & (jnp.argmax(logits, axis=-1) == labels)
  accuracy = jnp.sum(right) / total
  if axis_name is not None:
    # Every device computed the same; the mean tells the compiler so.
    loss, accuracy = jax.lax.pmean((loss, accuracy), axis_name)
  return loss, {"loss": loss, "cross_entropy": loss, "accuracy": accuracy}
