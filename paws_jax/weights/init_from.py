"""`model.init_from`: initial weights from a file, a run or a classifier.

A file is one of PyTorch (public PAWS checkpoints, ResNets of torchvision and
timm, EfficientNet-Lite, vision transformers), safetensors or NumPy; public
weights also have names. All sources become a state dict with PyTorch's names,
from which the encoder is filled.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import traverse_util

from paws_jax import errors
from paws_jax import text
from paws_jax.classifier import files
from paws_jax.distributed import agree
from paws_jax.runs import files as files_lib
from paws_jax.runs import recipe as recipe_lib
from paws_jax.weights import from_run
from paws_jax.weights import open_file
from paws_jax.weights import pretrained
from paws_jax.weights import state_dict
from paws_jax.weights import torch_names
from paws_jax.weights import vit_names

# Names listed in an error, and in the line about the loaded weights.
_MAX_ERROR_LINES = 30
_MAX_NAMES = 4

# The convolution that takes the images, in PyTorch's names.
_FIRST_LAYERS = (
  "conv1.weight",
  "_conv_stem.weight",
  "patch_embed.proj.weight",
)
_COLORS = 3

# Mean and std of images that weights of torchvision and timm usually expect.
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_EXPECT_IMAGENET = (
  state_dict.CLASSIFIER,
  vit_names.DINOV2,
  vit_names.DINOV3,
)

Statistics = tuple[tuple[float, ...], tuple[float, ...]]


def init_from(
  path: str, template: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
  """Puts the weights that a path holds into an encoder.

  Every array of the trunk must fit, and every array of the heads that the
  source holds; other heads keep their values, and a classifier is ignored. All
  processes of a run call it, each reads by itself, and the results must agree.

  Args:
    path: a file (see `open_file.open_weights`), the workdir of a run, the
      directory of a saved classifier, or a name (see `pretrained.WEIGHTS`).
    template: {"params", "batch_stats"} of the encoder, as arrays, or as
      `jax.ShapeDtypeStruct`s to try out whether the weights fit.

  Returns:
    `template` with the weights as numpy arrays in the places that they fill,
    and a line that says what was and what was not loaded.

  Raises:
    FileNotFoundError: the path does not exist.
    MissingPackageError: a named source needs a package.
    WeightsError: a ValueError; the source holds no weights, or they are
      damaged, not finite, unsafe, or do not fit; lists them by name.
    errors.DistributedError: the processes have read different weights.
  """
  # Names in messages come in this order.
  kinds = ("params", "batch_stats")
  template = {name: template[name] for name in kinds if name in template}
  filled, line = agree.on_all(lambda: _read(path, template))
  if jax.process_count() > 1:
    agree.agree(**{f"model.init_from={path}": _digest(filled)})
  return _merge(template, filled), line


def statistics(path: str) -> tuple[Statistics | None, str]:
  """Finds the mean and std with which the images of weights were normalized.

  Args:
    path: as of `init_from`.

  Returns:
    Mean and std of the channels, and their source; None where the source does
    not say.

  Raises:
    UserError: as for `init_from`.
  """
  if pretrained.is_name(path):
    weights = pretrained.WEIGHTS[path]
    return (weights.mean, weights.std), weights.description
  place = files_lib.resolve(path)
  if not place.is_dir():
    with _source(path) as (state, origin):
      known = state.layout in _EXPECT_IMAGENET
      return _IMAGENET if known else None, origin
  settings = files.settings_in(place)
  if settings is not None:
    used = settings["preprocessing"]
    return (tuple(used["mean"]), tuple(used["std"])), "a saved classifier"
  stored = recipe_lib.stored_recipe(place)
  if stored is None:
    return None, "a run"
  return (stored.views.mean, stored.views.std), "a run"


def _read(path: str, template: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
  """Returns the arrays for `template`, as a part of it, and the line."""
  with _source(path) as (state, origin):
    keep = {"trunk", *state.heads}
    wanted = {name: _select(tree, keep) for name, tree in template.items()}
    left_out = state.classifier_names()
    if "projection" not in template["params"]:
      left_out += state.names("fc.") if state.layout == state_dict.PAWS else []
    if "prediction" not in template["params"]:
      left_out += state.names("pred.")
    arrays = {n: a for n, a in state.arrays.items() if n not in left_out}
    try:
      _check_kinds(arrays)
      notes = [_sum_channels(arrays, wanted)]
      notes.append(vit_names.fit_positions(arrays, torch_names.shapes(wanted)))
      filled = torch_names.from_torch(arrays, wanted)
      _check_finite(filled)
    except ValueError as error:
      raise errors.WeightsError(
        f"model.init_from={path} ({origin}): {_shorten(str(error))}\nmodel."
        "name, width, prediction_head, projection_hidden_dim and output_dim "
        "(fc. is the projection head, pred. the prediction head), and the "
        "number of channels of the images must be those of the weights."
      ) from error
  line = _summary(path, origin, template, filled, left_out)
  return filled, "; ".join([line, *filter(None, notes)])


@contextlib.contextmanager
def _source(path: str) -> Iterator[tuple[state_dict.StateDict, str]]:
  """Yields the weights at a path, and a description of their source."""
  if pretrained.is_name(path):
    weights = pretrained.WEIGHTS[path]
    with open_file.open_weights(pretrained.find(path)) as tree:
      origin = f"{weights.description}; license: {weights.license}"
      yield state_dict.find(tree), origin
    return
  place = files_lib.resolve(path)
  if not place.exists():
    raise errors.MissingFileError(f"model.init_from={path} does not exist.")
  if not place.is_dir():
    _check_not_inside(path, place)
    with open_file.open_weights(place) as tree:
      state = state_dict.find(tree)
      yield state, f"{state.layout} weights"
    return
  variables, origin = _directory(place)
  encoder = {
    collection: {
      part: tree for part, tree in parts.items() if part in torch_names.PARTS
    }
    for collection, parts in variables.items()
  }
  state = state_dict.from_arrays(torch_names.to_torch(encoder))
  yield state, origin


def _check_not_inside(path: str, place: epath.Path) -> None:
  """Refuses a single file of a classifier or a run."""
  for settings, names in (
    (files.SETTINGS, (files.SETTINGS, files.ENCODER, files.BANK, files.HEAD)),
    (recipe_lib.RECIPE, (recipe_lib.RECIPE,)),
  ):
    if place.name in names and (place.parent / settings).exists():
      raise errors.WeightsError(
        f"model.init_from={path} is one file of a saved classifier or a run: "
        f"give the directory, {place.parent}."
      )


def _directory(path: epath.Path) -> tuple[Mapping[str, Any], str]:
  if (path / files.SETTINGS).exists():
    return files.read(path)["variables"], "a saved classifier"
  if from_run.is_run(path):
    variables, step = from_run.read(path)
    return variables, f"a run, step {step}"
  raise errors.WeightsError(
    f"model.init_from={path} is neither a run's workdir nor a saved "
    "classifier: name one of the two, or a file of weights."
  )


def _select(
  tree: Mapping[str, Any], keep: set[str], path: str = ""
) -> dict[str, Any]:
  """Returns the subtrees whose path is in `keep`."""
  chosen = {}
  for name, node in tree.items():
    below = f"{path}/{name}".lstrip("/")
    if below in keep:
      chosen[name] = node
    elif isinstance(node, Mapping) and (inner := _select(node, keep, below)):
      chosen[name] = inner
  return chosen


def _merge(tree: Any, new: Mapping[str, Any]) -> Any:
  """Returns `tree` with leaves replaced by those of `new`."""
  if not isinstance(tree, Mapping):
    return new
  return {
    name: _merge(node, new[name]) if name in new else node
    for name, node in tree.items()
  }


def _check_kinds(arrays: Mapping[str, Any]) -> None:
  odd = [
    f"{name}: {array.dtype}"
    for name, array in arrays.items()
    if not jnp.issubdtype(array.dtype, jnp.floating)
  ]
  if odd:
    raise errors.InputError(
      "not floating-point numbers:\n  " + "\n  ".join(odd)
    )


def _check_finite(filled: Any) -> None:
  odd = [
    jax.tree_util.keystr(path, simple=True, separator="/")
    for path, leaf in jax.tree.leaves_with_path(filled)
    if not np.all(np.isfinite(leaf))
  ]
  if odd:
    raise errors.InputError("not finite numbers in:\n  " + "\n  ".join(odd))
  negative = [
    "/".join(path)
    for path, leaf in traverse_util.flatten_dict(filled).items()
    if path[-1] == "var" and np.any(leaf < 0)
  ]
  if negative:
    raise errors.InputError(
      "running variances below 0 in:\n  " + "\n  ".join(negative)
    )


def _shorten(message: str) -> str:
  # Names come from a file.
  first, *lines = (text.printable(line) for line in message.split("\n"))
  listed = text.first_few(lines, most=_MAX_ERROR_LINES, separator="\n")
  return f"{first}\n{listed}" if lines else first


def _sum_channels(arrays: dict[str, Any], template: Mapping[str, Any]) -> str:
  """Makes the first layer of weights for color images one for grey images.

  The sum of its filters over red, green and blue gives what the filters give of
  an image whose three channels are the grey one; only nearly so where the
  weights expect other means and deviations of each channel.

  Returns:
    What was done, for the user; "": nothing.
  """
  shapes = torch_names.shapes(template)
  for name in _FIRST_LAYERS:
    if name in arrays and shapes.get(name, ())[1:2] == (1,):
      given = arrays[name]
      if len(given.shape) == 4 and given.shape[1] == _COLORS:
        arrays[name] = np.sum(np.asarray(given), axis=1, keepdims=True)
        return (
          f"images are grey: {name} is summed over its three channels, as if "
          "each image had them"
        )
  return ""


def _summary(
  path: str, origin: str, template: Any, filled: Any, left_out: list[str]
) -> str:
  """Returns a line about the arrays that were and were not loaded."""
  parts = [f"{len(jax.tree.leaves(filled))} arrays from {path} ({origin})"]
  loaded = _names(filled)
  kept = [name for name in _names(template) if name not in loaded]
  if kept:
    modules = dict.fromkeys(name.split("/")[1] for name in kept)
    parts.append(
      f"{len(kept)} keep their initial values ({', '.join(modules)})"
    )
  if left_out:
    parts.append(f"not used: {text.first_few(left_out, most=_MAX_NAMES)}")
  return "init_from: " + "; ".join(parts)


def _names(tree: Any) -> dict[str, None]:
  return dict.fromkeys(
    jax.tree_util.keystr(path, simple=True, separator="/")
    for path, _ in jax.tree.leaves_with_path(tree)
  )


def _digest(filled: Any) -> str:
  digest = hashlib.sha256()
  for path, leaf in jax.tree.leaves_with_path(filled):
    digest.update(f"{path}{leaf.shape}{leaf.dtype}".encode())
    digest.update(np.ascontiguousarray(leaf).tobytes())
  return digest.hexdigest()
