"""Facts about a run for the rules that judge its health."""

from __future__ import annotations

import ml_collections

from paws_jax.monitoring import rules
from paws_jax.training import experiment as experiment_lib


def facts(
  config: ml_collections.ConfigDict, experiment: experiment_lib.Experiment
) -> rules.Facts:
  """Collects the facts about a recipe that the health rules need."""
  counts = {
    name: spec.count for name, spec in experiment.trainer.views.crops.items()
  }
  steps_per_epoch = experiment.total_steps / experiment.train.epochs
  num_classes = experiment.dataset.num_classes
  return rules.Facts(
    num_classes=config.support.classes_per_step or num_classes,
    labels_per_class=len(experiment.dataset.labelled) / num_classes,
    images_per_step=experiment.images_per_step,
    total_steps=experiment.total_steps,
    warmup_steps=round(config.optim.warmup_epochs * steps_per_epoch),
    temperature=experiment.temperature,
    small_share=counts.get("small", 0) / max(sum(counts.values()), 1),
    label_smoothing=config.support.label_smoothing,
  )
