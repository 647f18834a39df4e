"""A recipe's train step as shapes: for devices, and images, that are not there.

It is the step of `experiment.create`: the same method, optimizer and pipeline,
of which nothing is computed and nothing put on a device.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.data import host_memory
from paws_jax.data import load_dataset
from paws_jax.data import memory_pipeline
from paws_jax.data import sampling
from paws_jax.data.host import pipeline as pipeline_lib
from paws_jax.data.sources import arrays
from paws_jax.parallel import mesh as mesh_lib
from paws_jax.plan import memory
from paws_jax.training import experiment
from paws_jax.training import state
from paws_jax.training import step as step_lib
from paws_jax.training import views as views_lib


@dataclasses.dataclass(frozen=True)
class Sizes:
  """What a plan needs to know of a data set.

  Attributes:
    num_images: training images.
    num_classes: of the data.
    shape: [H, W, C] of all its images; None where they differ.
  """

  num_images: int
  num_classes: int
  shape: tuple[int, int, int] | None = None


# By TFDS name; the sizes that its catalog gives.
KNOWN: Mapping[str, Sizes] = {
  "imagenet2012": Sizes(1_281_167, 1000),
  "food101": Sizes(75_750, 101),
  "cifar10": Sizes(50_000, 10, (32, 32, 3)),
  "cifar100": Sizes(50_000, 100, (32, 32, 3)),
  "svhn_cropped": Sizes(73_257, 10, (32, 32, 3)),
  "mnist": Sizes(60_000, 10, (28, 28, 1)),
  "fashion_mnist": Sizes(60_000, 10, (28, 28, 1)),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
  """The data, as far as shapes go; fields as of `dataset.Dataset`."""

  name: str
  num_images: int
  num_classes: int
  in_memory: bool
  make_pipeline: Callable[..., Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
  """One train step, ready to be lowered; what `memory.memory` reads, too.

  Attributes:
    dataset: where images come from.
    pipeline: as `memory_pipeline.InMemory`; only shapes can be asked of it.
    trainer: what the step needs.
    train: section `train`.
    images_per_step: as of `experiment.Experiment`.
    num_supports: images of the support set, without padding.
  """

  dataset: Source
  pipeline: Any
  trainer: state.Trainer
  train: config_lib.Train
  images_per_step: int
  num_supports: int

  @property
  def inputs(self) -> Any:
    """What waits on the devices for one call, as shapes with shardings."""
    return self.pipeline.input_shapes(self.train.steps_per_call)

  @property
  def argument_bytes(self) -> int:
    """Bytes on each device of the state and of what waits for one call."""
    return sum(
      math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
      for leaf in jax.tree.leaves((self.state, self.inputs))
      if leaf.sharding.memory_kind != host_memory.KIND
    )

  @property
  def host_bytes(self) -> int:
    """Bytes of the images of a step that stay in the host's memory."""
    return memory.host_bytes(self.pipeline.input_shapes(1))

  @functools.cached_property
  def batch(self) -> Any:
    """The `HostBatch` of one step, as shapes."""
    step = jax.ShapeDtypeStruct((), np.int32)
    return jax.eval_shape(self.pipeline.batch, self.inputs, step)

  @functools.cached_property
  def state(self) -> state.TrainState:
    """The state, as shapes with shardings."""
    # Before anything is traced: the host pipeline draws to know its shapes.
    batch = self.batch
    shapes = jax.eval_shape(
      lambda: step_lib.add_extra(
        self.trainer, step_lib.init_state(self.trainer, batch)
      )
    )
    return jax.tree.map(
      lambda sharding, tree: jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        tree,
      ),
      state.shardings(self.trainer),
      shapes,
    )

  def trace(self) -> Any:
    """The jitted call of one step, traced: a `jax.stages.Traced`.

    One step also where a call has several: each is the same, what a call keeps
    on the devices is among its inputs, and costs come out as those of a step.
    """
    call = step_lib.make_train_call(
      self.trainer, self.pipeline, 1, one_program=True
    )
    return call.trace(self.state, self.inputs)


def create(
  recipe: config_lib.Recipe | ml_collections.ConfigDict,
  devices: Sequence[jax.Device],
) -> Step:
  """Builds the step of a recipe for any devices.

  Args:
    recipe: a valid recipe; model.dtype "auto" counts as "bfloat16".
    devices: or descriptions of devices that are not there.

  Raises:
    UserError: as for `experiment.create`; missing data matter only where their
      sizes are not KNOWN.
  """
  if not isinstance(recipe, config_lib.Recipe):
    recipe = config_lib.resolve(recipe)
  if recipe.model.dtype == "auto":
    model = dataclasses.replace(recipe.model, dtype="bfloat16")
    recipe = dataclasses.replace(recipe, model=model)
  train_config = recipe.train
  mesh = mesh_lib.make_mesh(devices, **train_config.bn_fields)
  views = recipe.views
  source = _source(recipe, views)
  method, _, support = experiment.create_method(
    recipe,
    dataset_name=source.name,
    num_classes=source.num_classes,
    num_devices=mesh.size,
  )
  num_supports = support.num_images
  with_unlabelled = bool(method.views(views))
  pipeline = _make_pipeline(
    source,
    mesh,
    support=support if method.needs_support else None,
    batch_size=train_config.batch_size,
    seed=recipe.seed,
    with_unlabelled=with_unlabelled,
    chunks=train_config.chunks,
    **views_lib.host_crops(recipe, method, support),
  )
  trainer = experiment.create_trainer(
    recipe,
    method,
    support,
    steps_per_epoch=pipeline.steps_per_epoch,
    mesh=mesh,
    num_images=source.num_images,
    num_classes=source.num_classes,
  )
  return Step(
    dataset=source,
    pipeline=pipeline,
    trainer=trainer,
    train=train_config,
    images_per_step=train_config.batch_size
    if with_unlabelled
    else num_supports,
    num_supports=num_supports,
  )


def _make_pipeline(
  source: Source, mesh: jax.sharding.Mesh, *, batch_size: int, **options: Any
) -> Any:
  """The pipeline for a mesh that may consist of descriptions."""
  if not source.in_memory:
    return source.make_pipeline(mesh=mesh, batch_size=batch_size, **options)
  # Whether there are as many images is seen when it is made.
  memory_pipeline.check_batch(
    batch_size,
    num_images=batch_size,
    mesh=mesh,
    chunks=options.get("chunks", 1),
  )
  # It puts its images on devices when it is made, which descriptions cannot
  # take; `batch` and `input_shapes` only look at their shapes, and at the mesh.
  cpu = mesh_lib.make_mesh(jax.local_devices(backend="cpu")[:1])
  pipeline = source.make_pipeline(mesh=cpu, batch_size=batch_size, **options)
  pipeline._mesh = mesh
  return pipeline


def _source(recipe: config_lib.Recipe, views: config_lib.Views) -> Source:
  """The data of a recipe: by their published sizes, or as they are there."""
  section, support = recipe.data, recipe.support
  sizes = KNOWN.get(re.split("[/:]", section.tfds_name)[0])
  # Nothing is looked for: a plan is made where the data are not.
  if section.source != "tfds" or not sizes:
    found = load_dataset.load(section, views)
  elif section.pipeline == "host":
    return _encoded(section, sizes)
  elif sizes.shape is None:
    raise errors.InputError(
      f"data.pipeline is {section.pipeline!r} but the images of "
      f"{section.tfds_name} differ in size: set it to 'host'."
    )
  else:
    if section.labels_file:
      # Which images they are makes no difference, and the file may be away.
      section = dataclasses.replace(
        section, labels_file="", labels_per_class=support.images_per_class
      )
    found = load_dataset.load(section, views, arrays=_blank(section, sizes))
  return Source(
    name=found.name,
    num_images=len(found.train_images),
    num_classes=found.num_classes,
    in_memory=found.in_memory,
    make_pipeline=found.make_pipeline,
  )


def _blank(section: config_lib.Data, sizes: Sizes) -> arrays.Arrays:
  """Images of the right number and shape, without the memory."""
  # Of the size they are resized to, so that nobody resizes them.
  side = section.image_size
  assert sizes.shape is not None
  height, width, channels = sizes.shape
  shape = (side or height, side or width, channels)
  labels = np.arange(sizes.num_images, dtype=np.int32) % sizes.num_classes
  pixel = np.zeros((), np.uint8)
  return arrays.Arrays(
    name=section.tfds_name,
    class_names=tuple(map(str, range(sizes.num_classes))),
    train_images=np.broadcast_to(pixel, (sizes.num_images, *shape)),
    train_labels=labels,
    test_images=np.broadcast_to(pixel, (sizes.num_classes, *shape)),
    test_labels=labels[: sizes.num_classes],
  )


def _blank_index(
  support: config_lib.Support, sizes: Sizes
) -> sampling.LabelIndex:
  """As many labelled images as a step takes, without knowing which."""
  most = max(
    support.images_per_class, -(-support.batch_size // sizes.num_classes)
  )
  shape = (sizes.num_classes, most)
  index = sampling.LabelIndex(
    ids=np.zeros(shape, np.int32), counts=np.full(shape[:1], shape[1], "i4")
  )
  if support.sampling == "balanced":
    sampling.check_support(
      index,
      class_names=tuple(map(str, range(sizes.num_classes))),
      classes_per_step=support.classes_per_step,
      images_per_class=support.images_per_class,
      with_replacement=support.with_replacement,
    )
  return index


def _encoded(section: config_lib.Data, sizes: Sizes) -> Source:
  """A data set of encoded images that is not opened."""
  labelled = int(section.labels_fraction * sizes.num_images)
  labelled = section.labels_per_class * sizes.num_classes or labelled
  num_unlabelled = sizes.num_images
  if not section.include_labelled:
    num_unlabelled -= labelled

  def make_pipeline(
    *, support: config_lib.Support | None, **options: Any
  ) -> pipeline_lib.HostPipeline:
    index = None if support is None else _blank_index(support, sizes)
    # It asks for their number only, until it reads.
    images: Any = range(sizes.num_images)
    return pipeline_lib.HostPipeline(
      images,
      index,
      support=support,
      pool=np.arange(num_unlabelled, dtype=np.int32),
      canvas_size=section.canvas_size,
      on_bad_image=section.on_bad_image,
      max_pixels=section.max_pixels,
      support_cache_mb=section.support_cache_mb,
      in_host_memory=section.canvas_memory == "host",
      **options,
    )

  return Source(
    name=section.tfds_name,
    num_images=sizes.num_images,
    num_classes=sizes.num_classes,
    in_memory=False,
    make_pipeline=make_pipeline,
  )
