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
import numpy as np
from etils import epath

from benchmarks.compare import data as comparison_data
from benchmarks.compare import recipes as comparison_recipes
from benchmarks.compare import training as comparison_training
from paws_jax import config as config_lib
from paws_jax import losses
from paws_jax.evaluation import neighbors
from paws_jax.evaluation import soft_nn
from paws_jax.finetune import protocols
from paws_jax.finetune import schedule
from paws_jax.training import experiment as experiment_lib
from paws_jax.training import restore
from paws_jax.training import step

# Where a method has none of its own: any will do, the order stays the same.
_TEMPERATURE = 3.0


@dataclasses.dataclass(frozen=True)
class Cell:
  """A method, labelled images of each class, and the seed of the split."""

  method: str
  labels: int
  seed: int


# Weights, batch statistics, costs.
_Result = tuple[Any, Any, comparison_training.Spent]


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
    # SimCLR's last weights: they do not depend on the labels.
    self._unsupervised: tuple[int, _Result] | None = None
    self._embed = None

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
    # Compiled once: an experiment's own would be again for each.
    self._embed = self._embed or built.embed
    built = dataclasses.replace(built, embed=self._embed)
    params, batch_stats, spent = self._pretrained(cell, config, built)
    found = self._measure(config, built, params, batch_stats)
    row = dataclasses.asdict(cell) | {
      "dataset": built.dataset.name,
      "split_hash": built.dataset.split.hash,
      "top1_before": None,
    }
    if method.is_fine_tuned:
      done = restore.TrainedRun(
        recipe=config_lib.build(config),
        workdir=epath.Path(),
        experiment=built,
        params=params,
        batch_stats=batch_stats,
        step=built.total_steps,
      )
      params, batch_stats, more = self._fine_tune(done)
      spent += more
      row["top1_before"] = found["top1"]
      found = self._measure(config, built, params, batch_stats)
    return row | found | dataclasses.asdict(spent)

  def _pretrained(
    self, cell: Cell, config: Any, built: experiment_lib.Experiment
  ) -> _Result:
    """Weights, batch statistics and costs of the first phase."""
    method = comparison_recipes.METHODS[cell.method]
    if not method.takes_labelled and self._unsupervised is not None:
      seed, kept = self._unsupervised
      if seed == cell.seed:
        return kept
    pipeline = comparison_training.Padded(built.pipeline, built.trainer.mesh)
    shapes = jax.eval_shape(
      built.pipeline.batch, built.pipeline.input_shapes(1), jnp.int32(0)
    )
    initial = dataclasses.replace(built.trainer, seed=cell.seed)
    state, spent = self._programs.train(
      (cell.method, built.total_steps),
      built.trainer,
      pipeline,
      step.add_extra(initial, step.init_state(initial, shapes)),
      images=comparison_recipes.images_per_step(config, method),
      views=comparison_recipes.views_per_step(config, method),
      num_steps=built.total_steps,
    )
    if not method.takes_labelled:
      again = dataclasses.replace(spent, compile_seconds=0.0)
      kept = (state.params, state.batch_stats, again)
      self._unsupervised = (cell.seed, kept)
    return state.params, state.batch_stats, spent

  def _fine_tune(self, done: restore.TrainedRun) -> _Result:
    """The same of the second phase, on all labelled images."""
    course = _course(done, 1)
    views = course.images_per_step * course.trainer.num_support_views
    share = self._budget.views * self._budget.finetune_share
    epochs = int(share / (views * course.steps_per_epoch))
    course = _course(done, epochs)
    num_steps = epochs * course.steps_per_epoch
    # All of them start from the same kind of weights: one program for all.
    stats = done.batch_stats
    state, spent = self._programs.train(
      ("fine-tuning", num_steps),
      course.trainer,
      comparison_training.Padded(course.pipeline, course.trainer.mesh),
      course.initial_state(done.params, stats, self._budget.finetune_lr),
      images=course.images_per_step,
      views=views,
      num_steps=num_steps,
    )
    return state.params, state.batch_stats, spent

  def _measure(
    self,
    config: ml_collections.ConfigDict,
    built: experiment_lib.Experiment,
    params: Any,
    batch_stats: Any,
  ) -> dict[str, Any]:
    """Soft-NN accuracy, and how well unknown classes are told apart."""
    dataset = built.dataset
    supports = self._embed(params, batch_stats, dataset.labelled.images)
    queries = self._embed(params, batch_stats, dataset.test.images)
    accuracy = soft_nn.soft_nn_accuracy(
      queries,
      dataset.test.labels,
      supports,
      dataset.labelled.labels,
      num_classes=dataset.num_classes,
      temperature=built.temperature,
    )
    found = {"top1": accuracy["top1"], "num_test": len(dataset.test)}
    if self._data.unknown_images is None:
      return found
    strange = self._embed(params, batch_stats, self._data.unknown_images)
    temperature = config.method.get("in_domain_temperature", _TEMPERATURE)
    known, unknown = (
      _in_domain(rows, supports, temperature) for rows in (queries, strange)
    )
    return found | {
      "auroc": comparison_data.auroc(known, unknown),
      "num_unknown": len(strange),
    }


def _in_domain(
  queries: np.ndarray, supports: np.ndarray, temperature: float
) -> np.ndarray:
  """Probability [n] of being of a known class; falls as novelty rises."""
  similarities, _ = neighbors.nearest(queries, supports, 1)
  return np.asarray(
    losses.in_domain_probability(similarities[:, 0], temperature=temperature)
  )


def _course(done: restore.TrainedRun, epochs: int) -> schedule.TrainingSetup:
  section = dataclasses.replace(done.recipe.finetune, epochs=epochs)
  recipe = dataclasses.replace(done.recipe, finetune=section)
  protocol = protocols.Suncet(dataclasses.replace(done, recipe=recipe))
  return protocol.setup(done.experiment.dataset.split.labelled_ids)
