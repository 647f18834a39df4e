"""The health of a run: facts for the rules, findings about its result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paws_jax import config as config_lib
from paws_jax.monitoring import monitor as monitor_lib
from paws_jax.monitoring import rules
from paws_jax.training import experiment as experiment_lib
from paws_jax.training import run_log


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
    labels_per_class=len(experiment.dataset.labelled) / max(num_classes, 1),
    images_per_step=experiment.images_per_step,
    total_steps=experiment.total_steps,
    warmup_steps=round(recipe.optim.warmup_epochs * steps_per_epoch),
    temperature=experiment.temperature,
    small_share=counts.get("small", 0) / max(sum(counts.values()), 1),
    label_smoothing=recipe.support.label_smoothing,
    data_classes=num_classes,
    num_evaluated=len(
      getattr(experiment.dataset, experiment.dataset.monitored_part)
    ),
    recipe=recipe,
  )


def judge_result(
  monitor: monitor_lib.Monitor,
  log: run_log.RunLog | None,
  row: Mapping[str, Any],
  *,
  step: int,
) -> None:
  """Prints findings about a result, and adds them to metrics.jsonl.

  Args:
    monitor: it has seen all lines of metrics.jsonl.
    log: of the run; not None on the main process, which calls this.
    row: of results.json.
    step: the last step.
  """
  assert log is not None
  for finding in monitor.add_result(row, step=step):
    log.note(step, finding.as_row())
    print(finding.as_text())
  log.flush()
