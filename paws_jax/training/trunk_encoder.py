"""The frozen trunk of a run: from images to features."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import typing
import zlib
from collections.abc import Callable
from collections.abc import Generator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from paws_jax import config as config_lib
from paws_jax import models
from paws_jax.data import memory_pipeline
from paws_jax.models import encoder as encoder_lib
from paws_jax.parallel import mesh as mesh_lib
from paws_jax.runs import newest_checkpoint
from paws_jax.runs import provenance
from paws_jax.training import experiment as experiment_lib
from paws_jax.training import views as views_lib
from paws_jax.weights import init_from

Embed = Callable[[Any, Any, Any], np.ndarray]
# Changes when features of the same key would be others.
_VERSION = 1
# Crops that a device encodes at once.
_CROPS = 64
# Rows that are projected at once.
_ROWS = 4096


def stream(name: str) -> int:
  """Computes the step whose random numbers cut the views of a spec."""
  return zlib.crc32(name.encode()) >> 1


class TrunkEncoder:
  """The trunk with its weights, and the images.

  Attributes:
    recipe: with a frozen trunk.
    full: its experiment on images.
    encoder: of evaluation.
    variables: of its trunk, on all devices.
    hash: of these.
  """

  def __init__(
    self,
    recipe: config_lib.Recipe,
    full: experiment_lib.Experiment,
    workdir: epath.Path | None,
  ):
    """Reads the weights; from a run that has begun, and else `init_from`."""
    self.recipe, self.full = recipe, full
    method = full.trainer.method
    shapes = jax.eval_shape(method.encoder_variables, full.state_shapes())
    # A run that goes on needs the weights that it started from no more.
    has_begun = workdir is not None and newest_checkpoint.steps(workdir)
    path = str(workdir) if has_begun else recipe.model.init_from
    # Of its heads, those that are not there stay shapes.
    found, _ = init_from.init_from(path, shapes)
    # That of a vision transformer has no statistics.
    trunk = {
      kind: {name: part for name, part in parts.items() if name == "trunk"}
      for kind, parts in found.items()
    }
    digest = hashlib.blake2b(digest_size=16)
    for place, leaf in jax.tree.leaves_with_path(trunk):
      digest.update(jax.tree_util.keystr(place).encode())
      digest.update(np.ascontiguousarray(leaf).data)
    self.hash = digest.hexdigest()
    self.encoder = models.create(recipe.model)
    self.variables = mesh_lib.replicate(trunk, full.trainer.mesh)

  def key(self, name: str, spec: config_lib.ViewSpec) -> str:
    """Names all that features of a spec depend on but the images."""
    model, data = self.recipe.model, self.recipe.data
    views, trunk = self.recipe.views, typing.cast(Any, self.encoder.trunk)
    described = {
      "version": [_VERSION, provenance.version()],
      "weights": self.hash,
      "network": [model.name, model.width, str(trunk.settings.dtype)],
      "seed": self.recipe.seed,
      "views": [name, dataclasses.asdict(spec), views.mean, views.std],
      "images": [
        data.pipeline,
        data.canvas_size,
        data.image_size,
        data.decoder,
        data.white_level,
      ],
    }
    text = json.dumps(described, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

  def batch_size(self, spec: config_lib.ViewSpec) -> int:
    """Computes the images that are encoded at once."""
    return max(1, _CROPS // spec.count) * self.full.trainer.mesh.size

  def encode(
    self, name: str, spec: config_lib.ViewSpec, rows: np.ndarray
  ) -> Generator[tuple[list[int], np.ndarray]]:
    """Encodes views of images, some images more than once.

    All batches have one size, so that the features of an image do not depend on
    how many others are encoded.

    Args:
      name: of the views; others of the same image have other random numbers.
      spec: how to cut them.
      rows: of the training set.

    Yields:
      Rows [m], and their features, float16 [m, V, d].
    """
    pipeline = self._pipeline(rows, self.batch_size(spec))
    views = dataclasses.replace(self.full.trainer.views, crops={name: spec})

    @jax.jit
    def program(variables: Any, inputs: Any, step: jax.Array) -> Any:
      made = views_lib.make_views(
        pipeline.batch(inputs, step),
        seed=self.recipe.seed,
        step=stream(name),
        views=views,
        num_support_views=1,
      )
      crops = made.crops[name]
      features: Any = self.encoder.apply(
        variables,
        crops.reshape(-1, *crops.shape[2:]),
        method=encoder_lib.trunk_features,
      )
      features = features.reshape(*crops.shape[:2], -1)
      return made.ids, features.astype(jnp.float16)

    try:
      for step in range(pipeline.steps_per_epoch):
        inputs = pipeline.inputs(step, 1)
        ids, features = jax.device_get(program(self.variables, inputs, step))
        yield ids.tolist(), features
    finally:
      pipeline.close()

  def _pipeline(self, rows: np.ndarray, size: int) -> Any:
    """Makes a pipeline of images in batches of one size."""
    dataset = self.full.dataset
    make = dataset.make_pipeline
    if dataset.in_memory:
      # They are on the devices.
      images = self.full.pipeline.inputs(0, 1).images
      make = functools.partial(memory_pipeline.InMemory, images, None)
    return make(
      support=None,
      batch_size=size,
      seed=self.recipe.seed,
      mesh=self.full.trainer.mesh,
      with_unlabelled=True,
      pool=np.resize(rows, -(-len(rows) // size) * size).astype(np.int32),
    )

  def embedders(self) -> dict[str, Embed]:
    """Makes `embed` and `embed_trunk`, which encode the same images only once.

    They take arguments as those of `Experiment`.
    """
    encode, encoder = self.full.embed_trunk, self.encoder
    trunk = self.variables["params"], self.variables["batch_stats"]
    # By identity; the images are kept, so that no other gets it.
    known: dict[int, tuple[Any, np.ndarray]] = {}

    @jax.jit
    def project(params: Any, stats: Any, features: jax.Array) -> Any:
      _, z = encoder.apply(
        {"params": params, "batch_stats": stats},
        features,
        train=False,
        method="project",
      )
      return z

    def embed_trunk(params: Any, batch_stats: Any, images: Any) -> np.ndarray:
      del params, batch_stats  # Those of the trunk do not change.
      if id(images) not in known:
        known[id(images)] = images, encode(*trunk, images)
      return known[id(images)][1]

    def embed(params: Any, batch_stats: Any, images: Any) -> np.ndarray:
      features = embed_trunk(params, batch_stats, images)
      parts = [
        np.asarray(project(params, batch_stats, features[i : i + _ROWS]))
        for i in range(0, len(features), _ROWS)
      ]
      return np.concatenate(parts)

    return {"embed": embed, "embed_trunk": embed_trunk}
