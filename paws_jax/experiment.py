"""From a recipe to its parts: data, split, encoder, method, optimiser."""

from __future__ import annotations

import dataclasses
import functools
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
from paws_jax import resample
from paws_jax import sharding
from paws_jax import train
from paws_jax.data import in_memory
from paws_jax.data import sampling
from paws_jax.data import sources
from paws_jax.data import splits

_RESIZED_AT_ONCE = 4096


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Section `data` of a recipe; fields are explained in config.base."""

  source: str
  dir: str
  tfds_name: str
  image_size: int
  labels_per_class: int
  split_seed: int
  labels_file: str


@dataclasses.dataclass(frozen=True)
class Experiment:
  """Everything a task needs, built from a recipe before training starts."""

  arrays: sources.Arrays
  split: splits.Split
  pipeline: in_memory.InMemory
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
    inputs = self.pipeline.inputs(0, self.train.steps_per_call)
    batch = jax.eval_shape(self.pipeline.batch, inputs, jnp.int32(0))
    return train.init_state(self.trainer, batch)

  @property
  def labelled(self) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of the labelled part."""
    ids = self.split.labelled_ids
    return self.arrays.train_images[ids], self.arrays.train_labels[ids]


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
  data_config = DataConfig(**sections["data"])
  if arrays is None:
    arrays = sources.load(
      data_config.source,
      directory=data_config.dir,
      tfds_name=data_config.tfds_name,
    )
  resize = functools.partial(_resize, side=data_config.image_size)
  images = resize(arrays.train_images)
  views = augment.ViewsConfig(**sections["views"])
  _check_images(arrays.name, images, views)
  split = splits.choose(
    arrays,
    labels_per_class=data_config.labels_per_class,
    split_seed=data_config.split_seed,
    labels_file=data_config.labels_file,
  )
  mesh = sharding.make_mesh(devices)
  train_config = train.TrainConfig(**sections["train"])
  support = in_memory.SupportConfig(**sections["support"])
  method, encoder = _create_method(sections, support, train_config)
  method_views = method.views(views)
  pipeline = in_memory.InMemory(
    images,
    _label_index(arrays, split, support),
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
    arrays=arrays,
    split=split,
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
      views=views,
      batch_size=config.eval.batch_size,
      mesh=mesh,
      resize=resize,
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


def _label_index(
  arrays: sources.Arrays,
  split: splits.Split,
  support: in_memory.SupportConfig,
) -> sampling.LabelIndex:
  """The labelled images of every class, enough of them for the supports."""
  index = sampling.label_index(
    split.labelled_ids, arrays.train_labels, class_names=arrays.class_names
  )
  sampling.check_support(
    index,
    class_names=arrays.class_names,
    classes_per_step=support.classes_per_step,
    images_per_class=support.images_per_class,
    with_replacement=support.with_replacement,
  )
  return index


def _resize(images: np.ndarray, side: int) -> np.ndarray:
  """[n, H, W, Ch] uint8 -> [n, side, side, Ch] uint8; side 0: as they are."""
  if side == 0 or images.shape[1:3] == (side, side):
    return images
  starts = range(0, len(images), _RESIZED_AT_ONCE)
  parts = [
    _resize_batch(images[i : i + _RESIZED_AT_ONCE], side=side) for i in starts
  ]
  return np.concatenate([np.asarray(part) for part in parts])


@jax.jit(static_argnames="side")
def _resize_batch(images: jax.Array, *, side: int) -> jax.Array:
  whole = jnp.asarray([[0, 0, *images.shape[1:3]]], jnp.int32)
  boxes = jnp.broadcast_to(whole, (len(images), 4))
  resized = resample.crop_and_resize(images, boxes, size=side)
  return jnp.round(resized).astype(jnp.uint8)


def _check_images(
  name: str, images: np.ndarray, views: augment.ViewsConfig
) -> None:
  """Refuses statistics and crops that the images cannot have."""
  height, width, channels = images.shape[1:]
  if len(views.mean) != channels or len(views.std) != channels:
    raise ValueError(
      f"views.mean and views.std have {len(views.mean)} and {len(views.std)} "
      f"values but {name} has {channels} channels: give one per channel."
    )
  short = views.eval_resize or min(height, width)
  if short < views.large_size:
    raise ValueError(
      f"views.large_size is {views.large_size} but the short side of an "
      f"evaluation image is {short}: set views.eval_resize to at least "
      "large_size."
    )


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
