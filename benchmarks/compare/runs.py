"""One cell of a comparison: a method, trained at a given cost, and measured.

A cell's seed draws its labelled images and its initial weights. What else is
random follows the recipe's seed and is the same in all cells, so that a program
is compiled once for a method, whatever the split.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from etils import epath

from benchmarks.compare import data as comparison_data
from benchmarks.compare import recipes as comparison_recipes
from benchmarks.compare import scores as comparison_scores
from benchmarks.compare import training as comparison_training
from paws_jax import config as config_lib
from paws_jax.finetune import protocols
from paws_jax.finetune import schedule
from paws_jax.training import experiment as experiment_lib
from paws_jax.training import measure
from paws_jax.training import restore
from paws_jax.training import step


@dataclasses.dataclass(frozen=True)
class Cell:
  """A method, labelled images of each class, and the seed of the split."""

  method: str
  labels: int
  seed: int


# {"params", "batch_stats"} of the encoder, and costs.
_Result = tuple[dict[str, Any], comparison_training.Spent]


class Runner:
  """Runs cells of one recipe; keeps what they can share."""

  def __init__(
    self,
    base: ml_collections.ConfigDict,
    data: comparison_data.Data,
    budget: comparison_recipes.Budget,
  ):
    """Keeps them; trains nothing.

    Args:
      base: the recipe that all methods change as little as they can.
      data: images, and which classes are known.
      budget: of each cell.
    """
    self._base = base
    self._data = data
    self._budget = budget
    self._programs = comparison_training.Programs()
    # Of the newest seed, by method: results that do not depend on the labels.
    self._unsupervised: tuple[int, dict[str, _Result]] = (-1, {})
    # By the encoder's settings.
    self._embedders: dict[str, comparison_scores.Embedder] = {}

  def run(self, cell: Cell) -> dict[str, Any]:
    """Trains and measures.

    Returns:
      The cell's line: accuracies and AUROC as fractions, what was spent.

    Raises:
      ValueError, TypeError, FileNotFoundError: the recipe does not fit the
        data, the method or the budget.
      errors.NonFiniteError: training diverges.
    """
    method = comparison_recipes.METHODS[cell.method]
    config = comparison_recipes.recipe(
      self._base, method, self._budget, self._data
    )
    built = self._data.experiment(config, labels=cell.labels, seed=cell.seed)
    recipe = config_lib.build(config)
    embed = self._embedder(config, recipe, built)
    variables, head, spent = self._pretrained(cell, config, built)
    row = dataclasses.asdict(cell) | {
      "dataset": built.dataset.name,
      "split_hash": built.dataset.split.hash,
      "num_test": len(built.dataset.test),
    }
    embeddings = comparison_scores.embed_parts(embed, variables, built)
    row |= comparison_scores.frozen(embeddings, built)
    row |= comparison_scores.classify(embeddings, head, built)
    if (images := self._data.unknown_images) is not None:
      row |= comparison_scores.unknown(
        embeddings,
        embed(**variables, images=images)[1],
        temperature=recipe.method.in_domain_temperature,
      )
    if self._budget.finetune_share:
      done = restore.TrainedRun(
        recipe=recipe,
        workdir=epath.Path(),
        experiment=built,
        step=built.total_steps,
        **variables,
      )
      variables, more = self._fine_tune(done, config)
      spent += more
      embeddings = comparison_scores.embed_parts(embed, variables, built)
      row["fine_tuned"] = comparison_scores.vote(embeddings, built)
    return row | dataclasses.asdict(spent)

  def _embedder(
    self,
    config: ml_collections.ConfigDict,
    recipe: config_lib.Recipe,
    built: experiment_lib.Experiment,
  ) -> comparison_scores.Embedder:
    """Returns the compiled embedder of all cells with such an encoder."""
    key = config.model.to_json()
    if key not in self._embedders:
      self._embedders[key] = comparison_scores.embedder(recipe, built)
    return self._embedders[key]

  def _pretrained(
    self, cell: Cell, config: Any, built: experiment_lib.Experiment
  ) -> tuple[dict[str, Any], Any, comparison_training.Spent]:
    """Weights, class head and costs of the first phase."""
    method = comparison_recipes.METHODS[cell.method]
    if self._unsupervised[0] != cell.seed:
      self._unsupervised = (cell.seed, {})
    kept = self._unsupervised[1]
    if cell.method in kept:
      variables, spent = kept[cell.method]
      return variables, None, spent
    pipeline = comparison_training.Padded(built.pipeline, built.trainer.mesh)
    shapes = jax.eval_shape(
      built.pipeline.batch, built.pipeline.input_shapes(1), jnp.int32(0)
    )
    initial = dataclasses.replace(built.trainer, seed=cell.seed)
    state, spent = self._programs.train(
      cell.method,
      built.trainer,
      pipeline,
      step.add_extra(initial, step.init_state(initial, shapes)),
      images=comparison_recipes.images_per_step(config, method),
      views=comparison_recipes.views_per_step(config, method),
      num_steps=built.total_steps,
      between=comparison_training.between_epochs(built),
    )
    variables = built.trainer.method.encoder_variables(state)
    if not method.uses_labels:
      again = dataclasses.replace(spent, compile_seconds=0.0)
      kept[cell.method] = (variables, again)
    head = measure.class_head(built, state)
    return variables, jax.device_get(head), spent

  def _fine_tune(
    self, done: restore.TrainedRun, config: ml_collections.ConfigDict
  ) -> _Result:
    """The same of the second phase, on all labelled images."""
    course = _course(done, 1)
    views = course.images_per_step * course.trainer.num_support_views
    share = self._budget.views * self._budget.finetune_share
    epochs = int(share / (views * course.steps_per_epoch))
    course = _course(done, epochs)
    num_steps = epochs * course.steps_per_epoch
    stats = done.batch_stats
    state, spent = self._programs.train(
      # One program for all methods with such an encoder and temperature.
      f"fine-tuning {config.model.to_json()} {config.method.temperature}",
      course.trainer,
      comparison_training.Padded(course.pipeline, course.trainer.mesh),
      course.initial_state(done.params, stats, self._budget.finetune_lr),
      images=course.images_per_step,
      views=views,
      num_steps=num_steps,
    )
    return {"params": state.params, "batch_stats": state.batch_stats}, spent


def _course(done: restore.TrainedRun, epochs: int) -> schedule.TrainingSetup:
  section = dataclasses.replace(done.recipe.finetune, epochs=epochs)
  recipe = dataclasses.replace(done.recipe, finetune=section)
  protocol = protocols.Suncet(dataclasses.replace(done, recipe=recipe))
  return protocol.setup(done.experiment.dataset.split.labelled_ids)
