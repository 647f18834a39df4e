"""Checks of sections of a recipe against each other."""

from __future__ import annotations

import typing

from paws_jax import errors

if typing.TYPE_CHECKING:
  from paws_jax.config import recipe as recipe_lib


def check_sections(recipe: recipe_lib.Recipe) -> None:
  """Checks sections against each other.

  Args:
    recipe: sections that are right by themselves.

  Raises:
    InputError: naming the fields, their values, and what to change.
  """
  recipe.method.check_support(recipe.support)
  recipe.method.check_recipe(recipe)
  view, model = recipe.views.evaluation, recipe.model
  if recipe.method.class_head and model.projection_layers:
    raise errors.InputError(
      f"model.projection_layers is {model.projection_layers} but method.name "
      f"is {recipe.method.name!r}, which trains a classifier on the trunk: set "
      "it to 0, and model.prediction_head to False."
    )
  if not recipe.method.class_head and not model.projection_layers:
    raise errors.InputError(
      f"model.projection_layers is 0 but method.name is {recipe.method.name!r},"
      " which compares outputs of the projection head: set it to at least 2."
    )
  if recipe.data.pipeline == "host" and not view.eval_resize:
    raise errors.InputError(
      "views.eval_resize is 0 but data.pipeline is 'host', where images differ "
      f"in size: set it to at least {view.eval_size}, the side of the crop for "
      "evaluation."
    )
  if recipe.train.bn_groups > 1 and not recipe.method.allows_bn_groups:
    raise errors.InputError(
      f"train.bn_groups is {recipe.train.bn_groups} but method.name is "
      f"{recipe.method.name!r}, whose labelled images cannot be cut into "
      "groups with the others: set it to 1, or train.bn_group_size instead."
    )
  _check_chunks(recipe)
  if recipe.data.canvas_memory == "host":
    _check_host_memory(recipe)
  if recipe.views.crop_on == "host" and recipe.data.pipeline == "memory":
    raise errors.InputError(
      "views.crop_on is 'host' but data.pipeline is 'memory', where all images "
      "are on the devices: set views.crop_on to 'device', or read the images "
      "from disk (data.pipeline='host')."
    )
  if model.trunk == "frozen":
    _check_frozen(recipe)
  # The epochs that fit in train.minutes are compared when they are known.
  if recipe.optim.warmup_epochs > recipe.train.epochs > 0:
    raise errors.InputError(
      f"optim.warmup_epochs is {recipe.optim.warmup_epochs:g} but "
      f"train.epochs is {recipe.train.epochs}: lower the warm-up or train "
      "longer."
    )
  # Fine-tuning, which has weights to start from, freezes them without it.
  if model.freeze_bn and not model.init_from:
    raise errors.InputError(
      "model.freeze_bn is True but model.init_from is '': random weights have "
      "no running statistics worth keeping; name weights to start from, or set "
      "freeze_bn to False."
    )


def _check_chunks(recipe: recipe_lib.Recipe) -> None:
  """Refuses chunks of a method that has none."""
  if recipe.train.chunks != 1 and not recipe.method.allows_chunks:
    raise errors.InputError(
      f"train.chunks is {recipe.train.chunks or 'auto'} but method.name is "
      f"{recipe.method.name!r}, which encodes all images of a step at once: "
      "set it to 1."
    )


def _check_host_memory(recipe: recipe_lib.Recipe) -> None:
  """Checks that canvases can be sent from the host's memory."""
  data, train = recipe.data, recipe.train
  for field, value, possible, reason, remedy in (
    (
      "data.pipeline",
      data.pipeline,
      data.pipeline == "host",
      "all images lie on the devices anyway",
      "set data.canvas_memory to 'device'",
    ),
    (
      "views.crop_on",
      recipe.views.crop_on,
      recipe.views.crop_on == "device",
      "crops are sent, and no canvases",
      "set one of them to 'device'",
    ),
    (
      "train.steps_per_call",
      train.steps_per_call,
      train.steps_per_call == 1,
      "one call would pick among the canvases of several steps on the device",
      "set it to 1",
    ),
    (
      "data.canvas_size",
      data.canvas_size,
      data.canvas_size % 32 == 0,
      "canvases are packed in words of four pixels",
      "choose a multiple of 32",
    ),
  ):
    if not possible:
      raise errors.InputError(
        f"{field} is {value!r} but data.canvas_memory is 'host', and {reason}: "
        f"{remedy}."
      )


def _check_frozen(recipe: recipe_lib.Recipe) -> None:
  """Checks what the features of a frozen trunk are computed from."""
  views, support = recipe.views, recipe.support
  if not recipe.model.init_from:
    raise errors.InputError(
      "model.trunk is 'frozen' but model.init_from is '': random weights have "
      "no useful features; name weights to start from, or set model.trunk to "
      "'train'."
    )
  for field, value, allowed, reason in (
    (
      "views.crop_on",
      views.crop_on,
      "device",
      "crops are cut once, before training",
    ),
    (
      "train.chunks",
      recipe.train.chunks or "auto",
      1,
      "a step reads features, which take little memory",
    ),
    (
      "data.on_bad_image",
      recipe.data.on_bad_image,
      "error",
      "no other image can stand in for one whose features are kept",
    ),
  ):
    if value != allowed:
      raise errors.InputError(
        f"{field} is {value!r} but model.trunk is 'frozen', where {reason}: "
        f"set it to {allowed!r}."
      )
  counts = {f"views.{n}.count": s.count for n, s in views.crops.items()}
  for field, count, cached, there in (
    *((f, n, "views.cached", views.cached) for f, n in counts.items()),
    (
      "support.num_views",
      support.num_views,
      "views.cached_support",
      views.cached_support,
    ),
  ):
    if count > there:
      raise errors.InputError(
        f"{field} is {count} but {cached} is {there}: a frozen trunk "
        f"(model.trunk) has no more views of an image; raise {cached} to at "
        f"least {count}."
      )
