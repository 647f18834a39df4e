"""A notice before a run that is extended raises its learning rate again."""

from __future__ import annotations

import shlex

from etils import epath

from paws_jax import config as config_lib
from paws_jax import optim
from paws_jax import text
from paws_jax.runs import newest_checkpoint
from paws_jax.runs import recipe as recipe_lib


def notice(
  workdir: epath.Path, recipe: config_lib.Recipe, *, steps_per_epoch: int
) -> str:
  """Formats what a larger train.epochs does to the learning rate of a run.

  Args:
    workdir: absolute path of the run's directory.
    recipe: with the larger number of epochs.
    steps_per_epoch: of the data.

  Returns:
    A paragraph; "" where no run is extended, or its rate does not rise.
  """
  newest = newest_checkpoint.read(workdir)
  stored = recipe_lib.stored_recipe(workdir)
  if newest is None or stored is None:
    return ""
  earlier = newest.epochs or stored.train.epochs
  if recipe.train.epochs <= earlier:
    return ""

  def rate(epochs: int) -> float:
    """Learning rate of the next step in a run of so many epochs."""
    _, schedule = optim.create(
      recipe.optim,
      steps_per_epoch=steps_per_epoch,
      total_steps=epochs * steps_per_epoch,
    )
    return float(schedule(newest.step))

  before, now = rate(earlier), rate(recipe.train.epochs)
  if now <= before:
    return ""
  times = f" ({text.rounded(now / before)} times as much)" if before else ""
  return (
    f"this run was laid out for train.epochs={earlier}, and its learning "
    f"rate had fallen to {before:.3g} at step {newest.step:,} of "
    f"{earlier * steps_per_epoch:,}. With train.epochs="
    f"{recipe.train.epochs} it continues at {now:.3g}{times} and falls to "
    f"{recipe.optim.final_lr:.3g} until step "
    f"{recipe.train.epochs * steps_per_epoch:,}: the accuracy may drop before "
    "it rises. To keep the run as it is, do not start, or stop now (Ctrl-C), "
    f"and continue to use it with train.epochs={earlier}. To train its weights "
    "further beside it, start another run: --workdir=ANOTHER "
    f"--config.model.init_from={shlex.quote(str(workdir))}"
  )
