"""A linear layer trained on the trunk of a run, which does not change.

One of `evaluation.linear_protocols`, on the labelled images: BatchNorm uses its
running statistics, features are pooled and not normalized, crops are random.
The layer after the last epoch classifies the test images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from paws_jax import config as config_lib
from paws_jax import data
from paws_jax import errors
from paws_jax import models
from paws_jax import text
from paws_jax.data import labelled_pipeline
from paws_jax.data import sampling
from paws_jax.distributed import agree
from paws_jax.evaluation import protocols
from paws_jax.finetune import labelled
from paws_jax.finetune import linear_head
from paws_jax.finetune import linear_settings
from paws_jax.finetune import short_run
from paws_jax.methods import base
from paws_jax.methods import encoding
from paws_jax.models import encoder as encoder_lib
from paws_jax.parallel import mesh as mesh_lib
from paws_jax.training import measure as measure_lib
from paws_jax.training import restore
from paws_jax.training import state as state_lib
from paws_jax.training import step
from paws_jax.training import views as views_lib


@dataclasses.dataclass(frozen=True)
class FrozenTrunk(base.Method):
  """Cross-entropy of the labelled images that stand as supports.

  Its parameters are those of the layer; `extra` holds the variables of the
  encoder, so that nothing is differentiated or updated there.
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
    """Computes the mean over the rows whose label is not -1."""
    del step, key
    features = self.encoder.apply(
      extra,
      encoding.fold_views(encoding.supports(batch)),
      method=encoder_lib.trunk_features,
    )
    loss, metrics = linear_head.cross_entropy(
      params, features, batch, axis_name=self.axis_name
    )
    return base.Output(loss, metrics, batch_stats)


def measure(
  trained: restore.TrainedRun, name: str, part: str
) -> protocols.Outcome:
  """Trains the layer, then classifies; of several processes all call it.

  Args:
    trained: the run; `linear_settings.check` has passed.
    name: of a protocol.
    part: "test" or "validation".

  Raises:
    errors.InputError: a class has no labelled image that can be read.
    errors.BadImageError: an image cannot be read.
    errors.NonFiniteError: the training diverges, or features are not finite.
  """
  built = trained.experiment
  rows, truth = _features(trained, part)
  found = labelled.readable(trained)
  labels = built.dataset.labelled.labels[found]
  agree.on_all(
    lambda: linear_settings.check_classes(built.dataset, name, labels)
  )
  settings = linear_settings.choose(name, trained.recipe.eval, len(labels))
  ids = built.dataset.split.labelled_ids[found]
  layer = jax.device_get(
    settings.protocol.init(
      sampling.stream_key(trained.recipe.seed, sampling.INITIALIZATION),
      rows.shape[1],
      built.dataset.num_classes,
    )
  )
  layer = jax.device_get(_train(trained, settings, layer, ids, labels))
  logits = rows @ layer["kernel"] + layer["bias"]
  probabilities = np.asarray(jax.nn.softmax(logits, axis=-1))
  return protocols.Outcome(
    title=f"linear layer, {settings.protocol.paper}",
    protocol=name,
    part=part,
    settings=settings.as_row(trained.recipe.finetune),
    ranks=protocols.ranked(probabilities),
    labels=truth,
    num_classes=built.dataset.num_classes,
    probabilities=probabilities,
  )


def _train(
  trained: restore.TrainedRun,
  settings: linear_settings.LinearSettings,
  layer: Any,
  ids: np.ndarray,
  labels: np.ndarray,
) -> Any:
  """Trains the layer on rows `ids` of the training set, from `layer` on."""
  recipe, built = trained.recipe, trained.experiment
  mesh = built.trainer.mesh
  epochs = labelled_pipeline.LabelledEpochs(
    built.dataset.make_pipeline,
    ids=ids,
    labels=labels,
    num_classes=built.dataset.num_classes,
    batch_size=settings.wanted,
    seed=recipe.seed,
    mesh=mesh,
    field=linear_settings.BATCH_SIZE,
  )
  trainer = make_trainer(
    settings,
    models.create(recipe.model),
    views=labelled.views(recipe),
    steps_per_epoch=epochs.steps_per_epoch,
    seed=recipe.seed,
    mesh=mesh,
  )
  variables = {"params": trained.params, "batch_stats": trained.batch_stats}
  print(
    f"{settings.name}: {text.count(settings.epochs, 'epoch')} of "
    f"{text.count(epochs.steps_per_epoch, 'step')} on {len(ids)} labelled "
    f"images, learning rate {settings.learning_rate:g}"
  )
  try:
    state = short_run.run(
      step.make_train_call(trainer, epochs, 1),
      initial_state(trainer, variables, layer),
      epochs,
      total_steps=settings.epochs * epochs.steps_per_epoch,
      steps_per_epoch=epochs.steps_per_epoch,
      images_per_step=epochs.batch_size,
    )
  except errors.NonFiniteError as error:
    # The remedies it names are those of pre-training.
    trouble = str(error).partition(". ")[0]
    raise errors.NonFiniteError(
      f"--protocol={settings.name} with learning rate "
      f"{settings.learning_rate:g}: {trouble}. Lower "
      f"{linear_settings.LEARNING_RATE}."
    ) from error
  return state.params


def make_trainer(
  settings: linear_settings.LinearSettings,
  encoder: models.Encoder,
  *,
  views: config_lib.Views,
  steps_per_epoch: int,
  seed: int,
  mesh: jax.sharding.Mesh,
) -> state_lib.Trainer:
  """Builds the constant parts of a step.

  Args:
    settings: protocol, length and rate.
    encoder: of evaluation, without axes of BatchNorm.
    views: of the labelled images.
    steps_per_epoch: of the images.
    seed: the run's seed.
    mesh: devices.
  """
  schedule = settings.protocol.learning_rates(
    settings.learning_rate,
    epochs=settings.epochs,
    steps_per_epoch=steps_per_epoch,
  )
  method = FrozenTrunk(encoder=encoder, axis_name=mesh_lib.AXES)
  return state_lib.Trainer(
    method=method,
    optimizer=settings.protocol.optimizer(schedule),
    schedule=schedule,
    views=views_lib.step_views(method, views),
    num_support_views=1,
    seed=seed,
    mesh=mesh,
  )


def initial_state(
  trainer: state_lib.Trainer, variables: Mapping[str, Any], layer: Any
) -> state_lib.TrainState:
  """Creates the state at step 0, in memory of its own.

  Args:
    trainer: of `make_trainer`.
    variables: {"params", "batch_stats"} of the encoder.
    layer: {"kernel" [d, K], "bias" [K]} at first.
  """

  def build(variables: Any, layer: Any) -> state_lib.TrainState:
    return state_lib.TrainState(
      step=jnp.zeros((), jnp.int32),
      params=jax.tree.map(jnp.copy, layer),
      batch_stats={},
      opt_state=trainer.optimizer.init(layer),
      finite=jnp.ones((), bool),
      extra=jax.tree.map(jnp.copy, dict(variables)),
    )

  return jax.jit(build, out_shardings=state_lib.shardings(trainer))(
    variables, layer
  )


def _features(
  trained: restore.TrainedRun, part: str
) -> tuple[np.ndarray, np.ndarray]:
  """Features [n, d] and labels [n] of a part's images that can be read."""
  built, images = trained.experiment, getattr(trained.experiment.dataset, part)
  features = dataclasses.replace(built, embed=built.embed_trunk)
  print(f"embedding {len(images)} {part} images ...")
  variables = {"params": trained.params, "batch_stats": trained.batch_stats}
  rows = measure_lib.embed(features, variables, part, step=trained.step)
  return rows[images.readable], images.labels[images.readable]
