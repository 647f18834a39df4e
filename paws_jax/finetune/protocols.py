"""Two ways to fine-tune: what is trained, how, and how it classifies.

Each is a training run with another method, optimizer, views and pipeline, so a
protocol rewrites the recipe, and everything else is built as usual.

- "linear_head", of ImageNet (PAWS, section 5, 2021): a linear layer, zero at
  first, on the trunk and the first projection layer; all weights are trained by
  SGD with Nesterov momentum, the learning rate falls to 0 along a cosine,
  BatchNorm is in training mode, crops are random and flipped. A class head
  stands on the trunk and starts as it was trained.
- "suncet", of CIFAR: the soft nearest-neighbor loss of the labelled images
  (SuNCEt, 2020) with hard labels, by LARS, whose learning rate falls to a
  tenth; BatchNorm keeps its running statistics. Labelled images vote. A run
  whose class head decides is refused.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax import models
from paws_jax.config.methods import base as method_fields
from paws_jax.config.methods import supervised
from paws_jax.data import dataset as dataset_lib
from paws_jax.data import labelled_pipeline
from paws_jax.evaluation import embed
from paws_jax.evaluation import soft_nn
from paws_jax.finetune import labelled
from paws_jax.finetune import linear_head
from paws_jax.finetune import schedule
from paws_jax.models import encoder
from paws_jax.parallel import mesh as mesh_lib
from paws_jax.training import experiment as experiment_lib
from paws_jax.training import restore
from paws_jax.training import state as state_lib

# Of the first learning rate, what "suncet" ends with.
_SUNCET_FINAL = 0.1


@dataclasses.dataclass(frozen=True, eq=False)
class LinearHead:
  """The protocol "linear_head".

  Attributes:
    trained: the run to start from.
    votes: whether classifying needs the labelled images.
  """

  votes = False
  trained: restore.TrainedRun

  def check(self, num_images: int) -> None:
    """Refuses what `setup` could not do with that many images.

    Raises:
      ValueError: when the devices do not divide the batch.
    """
    labelled_pipeline.check_batch(
      self.trained.recipe.finetune.batch_size,
      num_images=num_images,
      mesh=self.trained.experiment.trainer.mesh,
    )

  def setup(self, ids: np.ndarray) -> schedule.TrainingSetup:
    """Prepares to train on rows [n] of the training set, ascending."""
    recipe, built = self.trained.recipe, self.trained.experiment
    labelled = built.dataset.labelled.labels
    places = np.searchsorted(built.dataset.split.labelled_ids, ids)
    epochs = labelled_pipeline.LabelledEpochs(
      built.dataset.make_pipeline,
      ids=ids,
      labels=labelled[places],
      num_classes=built.dataset.num_classes,
      batch_size=recipe.finetune.batch_size,
      seed=recipe.seed,
      mesh=built.trainer.mesh,
    )
    section = recipe.finetune
    recipe = _recipe(
      recipe,
      optim={"name": "sgd", "nesterov": section.nesterov, "final_lr": 0.0},
      support={"num_views": 1},
    )
    base, _, support = _create_method(recipe, built.dataset)
    method = linear_head.LinearHead(
      encoder=base.encoder,
      remat=recipe.train.remat,
      axis_name=mesh_lib.AXES,
    )

    def change(trainer: state_lib.Trainer) -> state_lib.Trainer:
      if section.schedule == "drops":
        trainer = linear_head.with_drops(
          trainer,
          recipe.optim,
          epochs=section.epochs,
          steps_per_epoch=epochs.steps_per_epoch,
        )
      if section.head_learning_rate_ratio == 1:
        return trainer
      optimizer = linear_head.groups(
        trainer.optimizer, section.head_learning_rate_ratio
      )
      return dataclasses.replace(trainer, optimizer=optimizer)

    return schedule.create(
      recipe,
      method,
      support,
      change=change,
      pipeline=epochs,
      steps_per_epoch=epochs.steps_per_epoch,
      images_per_step=epochs.batch_size,
      num_images=len(ids),
      mesh=built.trainer.mesh,
    )

  def initial_params(self) -> Any:
    """Parameters at step 0."""
    num_classes = self.trained.experiment.dataset.num_classes
    trunk = models.create(self.trained.recipe.model).trunk
    params = linear_head.add_head(
      self.trained.params, num_classes, num_features=trunk.num_features
    )
    if self.trained.recipe.method.class_head:
      # Trained with the encoder: fine-tuning goes on from it.
      params["head"] = jax.tree.map(jnp.asarray, dict(self.trained.head or {}))
    return params

  def encoder_params(self, params: Any) -> Any:
    """Those of the encoder."""
    return params["encoder"]

  def head(self, params: Any) -> dict[str, np.ndarray]:
    """Kernel [d, K] and bias [K] on the host."""
    return jax.tree.map(np.asarray, dict(params["head"]))

  def embed(self, params: Any, batch_stats: Any, images: Any) -> np.ndarray:
    """Features [n, d] of uint8 images [n, H, W, Ch]."""
    return self._embedder(params["encoder"], batch_stats, images)

  @functools.cached_property
  def _embedder(self) -> Callable[[Any, Any, Any], np.ndarray]:
    recipe, built = self.trained.recipe, self.trained.experiment
    return embed.make_embedder(
      models.create(recipe.model),
      view=built.dataset.eval_view,
      batch_size=recipe.eval.batch_size,
      mesh=built.trainer.mesh,
      resize=built.dataset.resize,
      layers=encoder.head_features,
    )

  def probabilities(
    self,
    params: Any,
    queries: np.ndarray,
    supports: np.ndarray | None,
    support_labels: np.ndarray | None,
  ) -> np.ndarray:
    """Class probabilities [n, K] of embedded images [n, d].

    Args:
      params: as they are trained.
      queries: of `embed`.
      supports: the labelled images, embedded, where they vote; else None.
      support_labels: [N] integers, or None.
    """
    del supports, support_labels
    head = self.head(params)
    logits = queries @ head["kernel"] + head["bias"]
    return np.asarray(jax.nn.softmax(logits, axis=-1))


@dataclasses.dataclass(frozen=True, eq=False)
class Suncet:
  """The protocol "suncet"; attributes and methods as of `LinearHead`."""

  votes = True
  trained: restore.TrainedRun

  def check(self, num_images: int) -> None:
    """Refuses runs and support sets that it would not train.

    Raises:
      errors.InputError: a linear layer decides, which it leaves as it is, or
        each support is the only one of its class.
    """
    del num_images
    recipe = self.trained.recipe
    if recipe.method.class_head:
      raise errors.InputError(
        "finetune.protocol is 'suncet' but method.name is "
        f"{recipe.method.name!r}, whose linear layer decides: 'suncet' trains "
        "the encoder without it, and accuracy falls; set finetune.protocol to "
        "'linear_head', which goes on from it."
      )
    method_fields.check_pairs(
      recipe.support,
      "suncet",
      field="finetune.protocol",
      remedy="set finetune.protocol to 'linear_head'",
    )

  def setup(self, ids: np.ndarray) -> schedule.TrainingSetup:
    """A step takes a support set of the recipe; an epoch, as many as fit.

    A class with fewer images than that stands in with each several times.
    """
    recipe, built = self.trained.recipe, self.trained.experiment
    mesh = built.trainer.mesh
    recipe = _recipe(
      recipe,
      optim={
        "name": "lars",
        "nesterov": False,
        "final_lr": _SUNCET_FINAL,
      },
      support={"label_smoothing": 0.0, "with_replacement": True},
      model={"freeze_bn": True},
    )
    method, _, support = _create_method(recipe, built.dataset)
    pipeline = built.dataset.make_pipeline(
      support=support,
      labelled_ids=ids,
      # Of unlabelled images, of which none are read.
      batch_size=mesh.size,
      seed=recipe.seed,
      mesh=mesh,
      with_unlabelled=False,
    )
    num_supports = support.num_images
    return schedule.create(
      recipe,
      method,
      support,
      pipeline=pipeline,
      steps_per_epoch=max(1, len(ids) // num_supports),
      images_per_step=num_supports,
      num_images=len(ids),
      mesh=mesh,
    )

  def initial_params(self) -> Any:
    """Those of the run."""
    return self.trained.params

  def encoder_params(self, params: Any) -> Any:
    """All of them."""
    return params

  def head(self, params: Any) -> dict[str, np.ndarray] | None:
    """There is none."""
    del params
    return None

  def embed(self, params: Any, batch_stats: Any, images: Any) -> np.ndarray:
    """Embeddings [n, D] of uint8 images [n, H, W, Ch]."""
    return self.trained.experiment.embed(params, batch_stats, images)

  def probabilities(
    self,
    params: Any,
    queries: np.ndarray,
    supports: np.ndarray | None,
    support_labels: np.ndarray | None,
  ) -> np.ndarray:
    """Soft nearest neighbors of embedded images."""
    del params
    assert supports is not None
    assert support_labels is not None
    built = self.trained.experiment
    return soft_nn.soft_nn_probabilities(
      queries,
      supports,
      support_labels,
      num_classes=built.dataset.num_classes,
      temperature=built.temperature,
    )


def _recipe(
  recipe: config_lib.Recipe,
  *,
  model: Mapping[str, Any] | None = None,
  optim: Mapping[str, Any],
  support: Mapping[str, Any],
) -> config_lib.Recipe:
  """Makes the recipe of a fine-tuning run out of that of its run.

  Args:
    recipe: of the run.
    model: fields of section `model` that the protocol changes.
    optim: fields of section `optim`.
    support: fields of section `support`.
  """
  section, change = recipe.finetune, dataclasses.replace
  return change(
    recipe,
    method=supervised.Config(temperature=recipe.method.temperature),
    model=change(recipe.model, trunk="train", **(model or {})),
    views=labelled.views(recipe),
    optim=change(
      recipe.optim,
      start_lr=1.0,
      peak_lr=1.0,
      schedule="cosine",
      warmup_epochs=0.0,
      weight_decay=0.0,
      momentum=0.9,
      **optim,
    ),
    support=change(
      recipe.support, sampling="balanced", batch_size=0, **support
    ),
    # Statistics of all images, also after a method with groups or chunks.
    train=change(recipe.train, epochs=section.epochs, bn_groups=1, chunks=1),
  )


def _create_method(
  recipe: config_lib.Recipe, dataset: dataset_lib.Dataset
) -> tuple[Any, models.Encoder, config_lib.Support]:
  return experiment_lib.create_method(
    recipe, dataset_name=dataset.name, num_classes=dataset.num_classes
  )


PROTOCOLS: Mapping[str, type[LinearHead] | type[Suncet]] = {
  "linear_head": LinearHead,
  "suncet": Suncet,
}
