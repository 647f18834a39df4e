"""Builds the parts of a recipe: data, split, encoder, method, optimizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from paws_jax import config as config_lib
from paws_jax import methods
from paws_jax import models
from paws_jax import optim
from paws_jax.data import dataset as dataset_lib
from paws_jax.data import load_dataset
from paws_jax.data.sources import arrays as arrays_lib
from paws_jax.evaluation import embed
from paws_jax.methods import base
from paws_jax.methods import chunks
from paws_jax.parallel import mesh as mesh_lib
from paws_jax.runs import requirements
from paws_jax.training import intervals
from paws_jax.training import length
from paws_jax.training import no_labels
from paws_jax.training import optimizer_groups
from paws_jax.training import state as state_lib
from paws_jax.training import step
from paws_jax.training import views as views_lib
from paws_jax.weights import init_from


@dataclasses.dataclass(frozen=True)
class Experiment:
  """The parts of a recipe that tasks need."""

  dataset: dataset_lib.Dataset
  pipeline: Any
  trainer: state_lib.Trainer
  embed: Callable[[Any, Any, np.ndarray], np.ndarray]
  # The same for the features of the trunk.
  embed_trunk: Callable[[Any, Any, np.ndarray], np.ndarray]
  train: config_lib.Train
  eval: config_lib.Eval
  finetune: config_lib.Finetune
  checkpoint: config_lib.Checkpoint
  log: config_lib.Log
  temperature: float
  total_steps: int
  # Unlabelled images of a step, or supports for a method without; for the rate.
  images_per_step: int
  # Path of the weights to start from; "": random weights.
  init_from: str
  # Of a pipeline of features: the shape of the images they replace; else None.
  features_of: tuple[int, int, int] | None = None

  @property
  def epoch_steps(self) -> int:
    """Steps between calls of `on_epoch_end`; 0: the method does not need it."""
    acts = self.trainer.method.acts_between_epochs
    return self.pipeline.steps_per_epoch if acts else 0

  def initial_state(self, *, warm: bool = True) -> state_lib.TrainState:
    """Creates the state at step 0.

    Args:
      warm: whether to load the weights of `model.init_from`; otherwise they are
        random, to be replaced by a checkpoint.

    Raises:
      UserError: as for `init_from.init_from`.
    """
    state = step.init_state(self.trainer, self._batch())
    if self.init_from and warm:
      encoder = self.trainer.method.encoder_variables(
        step.add_extra(self.trainer, state)
      )
      variables, line = init_from.init_from(self.init_from, encoder)
      print(line)
      # The initial state of the optimizer does not depend on the weights.
      old = state.params, state.batch_stats
      new = self.trainer.method.load_encoder(*old, variables)
      params, batch_stats = jax.tree.map(
        lambda leaf, like: jax.device_put(leaf, like.sharding), new, old
      )
      state = state.replace(params=params, batch_stats=batch_stats)
    return step.add_extra(self.trainer, state)

  def state_shapes(self) -> state_lib.TrainState:
    """Returns ShapeDtypeStructs of the state at step 0 with `extra`."""
    batch = self._batch()
    return jax.eval_shape(
      lambda: step.add_extra(self.trainer, step.init_state(self.trainer, batch))
    )

  def check_init_from(self) -> str:
    """Reads `model.init_from` to refuse bad weights; all processes call it.

    Returns:
      A line about what was and was not loaded; "" without such weights.

    Raises:
      UserError: as for `init_from.init_from`.
    """
    if not self.init_from:
      return ""
    encoder = jax.eval_shape(
      self.trainer.method.encoder_variables, self.state_shapes()
    )
    _, line = init_from.init_from(self.init_from, encoder)
    return line

  def _batch(self) -> Any:
    """Returns shapes of a batch; not while tracing: it may draw supports."""
    inputs = self.pipeline.input_shapes(self.train.steps_per_call)
    return jax.eval_shape(self.pipeline.batch, inputs, jnp.int32(0))


def create(
  recipe: config_lib.Recipe | ml_collections.ConfigDict,
  *,
  devices: Sequence[jax.Device] | None = None,
  arrays: arrays_lib.Arrays | None = None,
  like: Experiment | None = None,
) -> Experiment:
  """Builds the parts of a recipe.

  Args:
    recipe: a recipe; one that is not resolved is resolved first.
    devices: default all.
    arrays: the data; default what section `data` names.
    like: of a recipe with another number of epochs or chunks: its data and
      embedders are used, and its pipeline or the images on the devices.

  Raises:
    errors.InputError: the data do not fit the recipe, or its number of chunks
      is yet to be found (`plan.auto_chunks`).
    FileNotFoundError: the data do not exist.
    errors.MissingPackageError: as of `requirements.check`.
  """
  if not isinstance(recipe, config_lib.Recipe):
    recipe = config_lib.resolve(recipe)
  requirements.check(recipe)
  dataset = like.dataset if like else _load(recipe, arrays)
  mesh = mesh_lib.make_mesh(devices, **recipe.train.bn_fields)
  method, encoder, support = create_method(
    recipe,
    dataset_name=dataset.name,
    num_classes=dataset.num_classes,
    class_counts=dataset.split.class_counts,
    num_devices=mesh.size,
    features_of=like.features_of if like else None,
  )
  has_unlabelled = bool(method.views(recipe.views))
  pipeline = _make_pipeline(recipe, dataset, method, support, mesh, like=like)
  trainer = create_trainer(
    recipe,
    method,
    support,
    steps_per_epoch=pipeline.steps_per_epoch,
    mesh=mesh,
    num_images=len(dataset.train_images),
    num_classes=dataset.num_classes,
    class_counts=dataset.split.class_counts,
    labels=dataset.known_labels,
  )
  num_images = recipe.train.batch_size if has_unlabelled else support.num_images
  built = _assemble(
    recipe, dataset, pipeline, trainer, encoder, images_per_step=num_images
  )
  shared = ("embed", "embed_trunk", "features_of") if like else ()
  return dataclasses.replace(built, **{n: getattr(like, n) for n in shared})


def _make_pipeline(
  recipe: config_lib.Recipe,
  dataset: dataset_lib.Dataset,
  method: Any,
  support: config_lib.Support,
  mesh: jax.sharding.Mesh,
  *,
  like: Experiment | None,
) -> Any:
  if like and like.train.chunks == recipe.train.chunks:
    return like.pipeline
  if like and dataset.in_memory:
    # The images are on the devices.
    return like.pipeline.with_chunks(recipe.train.chunks)
  return dataset.make_pipeline(
    support=support if method.needs_support else None,
    batch_size=recipe.train.batch_size,
    seed=recipe.seed,
    mesh=mesh,
    with_unlabelled=bool(method.views(recipe.views)),
    chunks=recipe.train.chunks,
    **views_lib.host_crops(recipe, method, support),
  )


def _load(
  recipe: config_lib.Recipe, arrays: arrays_lib.Arrays | None
) -> dataset_lib.Dataset:
  dataset = load_dataset.load(recipe.data, recipe.views, arrays=arrays)
  no_labels.check(recipe.method.name, dataset)
  return dataset


def _assemble(
  recipe: config_lib.Recipe,
  dataset: dataset_lib.Dataset,
  pipeline: Any,
  trainer: state_lib.Trainer,
  encoder: models.Encoder,
  *,
  images_per_step: int,
) -> Experiment:
  """Joins the parts, and the embedders of the evaluation's encoder."""
  experiment = Experiment(
    dataset=dataset,
    pipeline=pipeline,
    trainer=trainer,
    **embed.make_embedders(
      encoder,
      view=dataset.eval_view,
      batch_size=recipe.eval.batch_size,
      mesh=trainer.mesh,
      resize=dataset.resize,
    ),
    train=recipe.train,
    eval=recipe.eval,
    finetune=recipe.finetune,
    checkpoint=recipe.checkpoint,
    log=recipe.log,
    temperature=recipe.method.temperature,
    total_steps=trainer.facts.total_steps,
    images_per_step=images_per_step,
    init_from=recipe.model.init_from,
  )
  intervals.check(experiment)
  return experiment


def create_method(
  recipe: config_lib.Recipe,
  *,
  dataset_name: str,
  num_classes: int,
  class_counts: Sequence[int] | None = None,
  num_devices: int | None = None,
  features_of: tuple[int, int, int] | None = None,
) -> tuple[Any, models.Encoder, config_lib.Support]:
  """Builds method and encoders, which do not depend on the images.

  Args:
    recipe: as of `create`.
    dataset_name: for messages.
    num_classes: of the data.
    class_counts: labelled images of each class; None where only shapes matter.
    num_devices: of the mesh; default all.
    features_of: of the encoder for training, see `models.Encoder`.

  Returns:
    The method with its encoder for training, an encoder for evaluation, and
    section `support`.

  Raises:
    UserError: as for `create`.
  """
  support = recipe.support
  if methods.METHODS[recipe.method.name].needs_support:
    support = support.for_classes(num_classes, dataset_name)
    recipe.method.check_step(support, recipe.train.batch_size)
  count = recipe.train.known_chunks
  method = methods.create(
    recipe.method,
    encoder=models.create(
      recipe.model,
      chunking=chunks.InScan(count) if count > 1 else None,
      **mesh_lib.batch_norm_axes(
        **recipe.train.bn_fields, num_devices=num_devices, chunks=count
      ),
      features_of=features_of,
    ),
    label_smoothing=support.label_smoothing,
    remat=recipe.train.remat,
    axis_name=mesh_lib.AXES,
    num_classes=num_classes,
    class_counts=class_counts,
  )
  return method, models.create(recipe.model), support


def create_trainer(
  recipe: config_lib.Recipe,
  method: Any,
  support: config_lib.Support,
  *,
  steps_per_epoch: int,
  mesh: jax.sharding.Mesh,
  num_images: int = 0,
  num_classes: int = 0,
  class_counts: Sequence[int] | None = None,
  labels: np.ndarray | None = None,
) -> state_lib.Trainer:
  """Builds the constant parts of a train step.

  Args:
    recipe: as of `create`.
    method: of `create_method`.
    support: of `create_method`.
    steps_per_epoch: of the schedule, and of what the method counts in epochs.
    mesh: devices, or descriptions of devices to compile for.
    num_images: training images, for methods with a table of images.
    num_classes: of the data.
    class_counts: labelled images of each class; None where only shapes matter.
    labels: as of `base.Facts`.

  Raises:
    UserError: as for `create`.
  """
  total_steps = length.total_steps(recipe, steps_per_epoch=steps_per_epoch)
  optimizer, schedule = optim.create(
    recipe.optim, steps_per_epoch=steps_per_epoch, total_steps=total_steps
  )
  facts = base.Facts(
    num_images=num_images,
    num_classes=num_classes,
    class_counts=None if class_counts is None else tuple(class_counts),
    batch_size=recipe.train.batch_size,
    steps_per_epoch=steps_per_epoch,
    total_steps=total_steps,
    labels=labels,
    include_labelled=recipe.data.include_labelled,
  )
  method = methods.in_steps(method, steps_per_epoch=steps_per_epoch)
  return state_lib.Trainer(
    method=dataclasses.replace(method, facts=facts),
    optimizer=optimizer_groups.create(optimizer, method, recipe.optim),
    schedule=schedule,
    views=views_lib.step_views(method, recipe.views),
    num_support_views=support.num_views,
    seed=recipe.seed,
    mesh=mesh,
    facts=facts,
    observe=optim.observer(recipe.optim),
  )
