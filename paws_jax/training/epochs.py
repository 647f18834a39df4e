"""The work of a method between two epochs."""

from __future__ import annotations

import numpy as np

from paws_jax.training import experiment as experiment_lib
from paws_jax.training import measure
from paws_jax.training import state as state_lib


def end_epoch(
  experiment: experiment_lib.Experiment,
  state: state_lib.TrainState,
  step: int,
) -> state_lib.TrainState:
  """Calls the method's `on_epoch_end`; of several processes all call it.

  Args:
    experiment: method, images and embedder.
    state: after the last step of the epoch; at step 0, before the first.
    step: steps taken.

  Returns:
    The state to continue with, in arrays of its own: tables are padded again,
    and every array lies on the devices as the train step expects it.

  Raises:
    errors.NonFiniteError: when embeddings are not finite.
    errors.BadImageError: as `data.on_bad_image` says.
  """
  method = experiment.trainer.method

  def embed(*, trunk: bool = False) -> np.ndarray:
    images = experiment.dataset.train_images
    rows = measure.embed_images(
      experiment,
      method.encoder_variables(state),
      images,
      name="training",
      step=step,
      trunk=trunk,
    )
    return _without_unreadable(rows, images)

  changed = method.on_epoch_end(state, embed, step=step)
  if changed is state:
    return state
  return experiment.trainer.place(changed)


def _without_unreadable(rows: np.ndarray, images: object) -> np.ndarray:
  """Rows with NaN where an image could not be read."""
  readable = getattr(images, "readable", None)
  if readable is None or readable.all():
    return rows
  return np.where(readable[:, None], rows, np.nan)
