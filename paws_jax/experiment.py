"""From a recipe to its parts: data, split, encoder, method, optimiser."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from paws_jax import augment
from paws_jax import checkpoint
from paws_jax import evaluate
from paws_jax import methods
from paws_jax import metrics
from paws_jax import models
from paws_jax import optim
from paws_jax import sharding
from paws_jax import train
from paws_jax.data import datasets
from paws_jax.data import in_memory
from paws_jax.data import sources


@dataclasses.dataclass(frozen=True)
class Experiment:
  """Everything a task needs, built from a recipe before training starts."""

  dataset: datasets.Dataset
  pipeline: Any
  trainer: train.Trainer
  embed: Callable[[Any, Any, np.ndarray], np.ndarray]
  train: train.TrainConfig
  eval: evaluate.EvalConfig
  checkpoint: checkpoint.CheckpointConfig
  log: metrics.LogConfig
  temperature: float
  total_steps: int
  # Images that a step processes, for the rate: unlabelled ones, or supports for
  # a method without.
  images_per_step: int

  def initial_state(self) -> train.TrainState:
    """State at step 0."""
    inputs = self.pipeline.input_shapes(self.train.steps_per_call)
    batch = jax.eval_shape(self.pipeline.batch, inputs, jnp.int32(0))
    return train.init_state(self.trainer, batch)


def create(
  config: ml_collections.ConfigDict,
  *,
  devices: Sequence[jax.Device] | None = None,
  arrays: sources.Arrays | None = None,
) -> Experiment:
  """Builds the parts of a validated recipe.

  Args:
    config: a resolved recipe that `config.validate` has passed.
    devices: default all.
    arrays: the data; default what section `data` names.

  Raises:
    TypeError: an unknown field of a section, by name.
    ValueError: whatever the data and the recipe disagree on.
    FileNotFoundError: data that is not there.
  """
  sections = {
    name: dict(section)
    for name, section in config.items()
    if isinstance(section, ml_collections.ConfigDict)
  }
  views = augment.ViewsConfig(**sections["views"])
  data_config = datasets.DataConfig(**sections["data"])
  dataset = datasets.load(data_config, views, arrays=arrays)
  mesh = sharding.make_mesh(devices)
  train_config = train.TrainConfig(**sections["train"])
  support = _support_config(sections["support"], dataset)
  method, encoder = _create_method(sections, support, train_config)
  method_views = method.views(views)
  pipeline = dataset.make_pipeline(
    support=support,
    batch_size=train_config.batch_size,
    seed=config.seed,
    mesh=mesh,
    with_unlabelled=method_views.num_large > 0,
  )
  total_steps = train_config.epochs * pipeline.steps_per_epoch
  optimizer, schedule = optim.create(
    sections["optim"],
    steps_per_epoch=pipeline.steps_per_epoch,
    total_steps=total_steps,
  )
  experiment = Experiment(
    dataset=dataset,
    pipeline=pipeline,
    trainer=train.Trainer(
      method=method,
      optimizer=optimizer,
      schedule=schedule,
      views=method_views,
      num_support_views=support.num_views,
      seed=config.seed,
      mesh=mesh,
    ),
    embed=evaluate.make_embedder(
      encoder,
      views=dataset.eval_views,
      batch_size=config.eval.batch_size,
      mesh=mesh,
      resize=dataset.resize,
    ),
    train=train_config,
    eval=evaluate.EvalConfig(**sections["eval"]),
    checkpoint=checkpoint.CheckpointConfig(**sections["checkpoint"]),
    log=metrics.LogConfig(**sections["log"]),
    temperature=config.method.temperature,
    total_steps=total_steps,
    images_per_step=train_config.batch_size
    if method_views.num_large
    else support.classes_per_step * support.images_per_class,
  )
  _check_intervals(experiment)
  return experiment


def _create_method(
  sections: Mapping[str, Mapping[str, Any]],
  support: in_memory.SupportConfig,
  train_config: train.TrainConfig,
) -> tuple[Any, models.Encoder]:
  """The method with its encoder for training, and one for evaluation."""
  method = methods.create(
    sections["method"],
    encoder=models.create(sections["model"], axis_name=sharding.AXES),
    label_smoothing=support.label_smoothing,
    remat=train_config.remat,
    axis_name=sharding.AXES,
  )
  return method, models.create(sections["model"])


def _support_config(
  section: Mapping[str, Any], dataset: datasets.Dataset
) -> in_memory.SupportConfig:
  """Section `support`, with the number of classes where it asks for all."""
  if dataset.num_classes < 2:
    raise ValueError(
      f"{dataset.name} has {dataset.num_classes} class: a soft label needs at "
      "least 2."
    )
  support = in_memory.SupportConfig(**section)
  if support.classes_per_step:
    return support
  return dataclasses.replace(support, classes_per_step=dataset.num_classes)


def _check_intervals(experiment: Experiment) -> None:
  """Everything happens at the end of a call: intervals must be multiples."""
  per_call = experiment.train.steps_per_call
  intervals = {
    "the total number of steps": experiment.total_steps,
    "eval.every_steps": experiment.eval.every_steps,
    "checkpoint.every_steps": experiment.checkpoint.every_steps,
  }
  for name, steps in intervals.items():
    if steps % per_call:
      raise ValueError(
        f"train.steps_per_call is {per_call}, which does not divide {name}, "
        f"{steps} ({experiment.train.epochs} epochs of "
        f"{experiment.pipeline.steps_per_epoch} steps in all): change one of "
        "the two."
      )
