"""Facts about a run for the rules that judge its health."""

from __future__ import annotations

from paws_jax import config as config_lib
from paws_jax.monitoring import rules
from paws_jax.training import experiment as experiment_lib


def facts(
  recipe: config_lib.Recipe, experiment: experiment_lib.Experiment
) -> rules.Facts:
  """Collects the facts about a recipe that the health rules need."""
  counts = {
    name: spec.count for name, spec in experiment.trainer.views.crops.items()
  }
  steps_per_epoch = experiment.total_steps / experiment.train.epochs
  num_classes = experiment.dataset.num_classes
  return rules.Facts(
    num_classes=recipe.support.classes_per_step or num_classes,
    labels_per_class=len(experiment.dataset.labelled) / num_classes,
    images_per_step=experiment.images_per_step,
    total_steps=experiment.total_steps,
    warmup_steps=round(recipe.optim.warmup_epochs * steps_per_epoch),
    temperature=experiment.temperature,
    small_share=counts.get("small", 0) / max(sum(counts.values()), 1),
    label_smoothing=recipe.support.label_smoothing,
  )
