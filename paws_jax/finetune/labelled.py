"""The labelled images of a run: which can be read, and how they are cut."""

from __future__ import annotations

import dataclasses

import numpy as np

from paws_jax import config as config_lib
from paws_jax.distributed import agree
from paws_jax.training import restore


def readable(trained: restore.TrainedRun) -> np.ndarray:
  """Finds which labelled images can be read; all processes call it.

  Returns:
    bool [n].
  """
  part = trained.experiment.dataset.labelled
  images = part.images
  if trained.recipe.data.on_bad_image == "skip" and hasattr(
    images, "share_unreadable"
  ):
    print(f"reading {len(part)} labelled images ...")
    # As an evaluation reads them: each process its own, all at once.
    trained.experiment.embed(trained.params, trained.batch_stats, images)
    images.share_unreadable(agree.gather)
  found = part.readable
  if not found.all():
    print(
      f"{int((~found).sum())} of {len(found)} labelled images cannot be "
      "read and are left out"
    )
  return found


def views(recipe: config_lib.Recipe) -> config_lib.Views:
  """Returns section `views` with crops and flips only for labelled images.

  Args:
    recipe: of the run; section `finetune` says how large crops are.
  """
  section, specs = recipe.finetune, recipe.views.specs
  name = config_lib.support_name(specs)
  view = dataclasses.replace(
    specs[name],
    scale=section.crop_scale,
    aspect_ratio=section.aspect_ratio,
    jitter_probability=0.0,
    grey_probability=0.0,
    blur_probability=0.0,
    solarize_probability=0.0,
    equalize_probability=0.0,
    shift_pixels=0,
    rand_augment="",
    cutout_size=0,
  )
  return dataclasses.replace(recipe.views, specs={**specs, name: view})
