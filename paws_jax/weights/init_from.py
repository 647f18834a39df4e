"""`model.init_from`: weights to start from, wherever they come from.

A file of PyTorch's (public PAWS checkpoints, torchvision's and timm's ResNets),
another run, or a saved classifier. All become a state dict under PyTorch's
names, and go into the encoder from there.
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

from paws_jax import errors
from paws_jax import text
from paws_jax.classifier import files as classifier_files
from paws_jax.distributed import agree
from paws_jax.runs import files
from paws_jax.weights import from_run
from paws_jax.weights import open_file
from paws_jax.weights import state_dict
from paws_jax.weights import torch_names

# Names in an error or a line; a whole network would fill the screen.
_LISTED = 30
_NAMED = 4


def init_from(path: str, params: Any, model_state: Any) -> tuple[Any, Any, str]:
  """Puts the weights that a path holds into an encoder.

  The trunk must fit as a whole. So must the heads that are there; others stay
  as they are, and a classifier on top is left out. Of several processes all
  call it, each reads by itself, and they must have read the same.

  Args:
    path: a file (see `weight_files.opened`), a run's workdir, or the directory
      of a saved classifier.
    params: of the encoder, {"trunk", "projection", ...}: arrays, or
      `jax.ShapeDtypeStruct`s to try out whether the weights fit.
    model_state: {"batch_stats", ...}; the rest of it stays as it is.

  Returns:
    params and model_state with the weights as numpy arrays in the places that
    they fill, and a line that says what was and what was not loaded.

  Raises:
    FileNotFoundError: when there is nothing at the path.
    WeightsError: a ValueError; when it holds no weights, they are damaged, not
      finite, or must not be trusted, or do not fit: listed by name.
    errors.DistributedError: when the processes have not read the same.
  """
  template = {"params": params, "batch_stats": model_state["batch_stats"]}
  filled, line = agree.on_all(lambda: _read(path, template))
  if jax.process_count() > 1:
    agree.agree(**{f"model.init_from={path}": _digest(filled)})
  full = _merge(template, filled)
  model_state = model_state | {"batch_stats": full["batch_stats"]}
  return full["params"], model_state, line


def _read(path: str, template: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
  """The arrays that fit into `template`, as a part of it, and the line."""
  with _source(path) as (state, origin):
    keep = {"trunk", *state.heads}
    wanted = {name: _select(tree, keep) for name, tree in template.items()}
    left_out = state.classifier_names()
    if "prediction" not in template["params"]:
      left_out += state.names("pred.")
    arrays = {n: a for n, a in state.arrays.items() if n not in left_out}
    try:
      _check_kinds(arrays)
      filled = torch_names.from_torch(arrays, wanted)
      _check_finite(filled)
    except ValueError as error:
      raise errors.WeightsError(
        f"model.init_from={path} ({origin}): {_shorten(str(error))}\nmodel."
        "name, width and prediction_head, projection_hidden_dim and output_dim "
        "(fc. is the projection head, pred. the prediction head), and the "
        "images' channels must be those of the weights."
      ) from error
  return filled, _summary(path, origin, template, filled, left_out)


@contextlib.contextmanager
def _source(path: str) -> Iterator[tuple[state_dict.StateDict, str]]:
  """The weights at a path, and what they are in words."""
  place = files.resolve(path)
  if not place.exists():
    raise errors.MissingFileError(
      f"model.init_from={path}: there is no such file."
    )
  if not place.is_dir():
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


def _directory(path: epath.Path) -> tuple[Mapping[str, Any], str]:
  if (path / classifier_files.SETTINGS).exists():
    return classifier_files.read(path)["variables"], "a saved classifier"
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
  """Subtrees whose path is in `keep`."""
  chosen = {}
  for name, node in tree.items():
    below = f"{path}/{name}".lstrip("/")
    if below in keep:
      chosen[name] = node
    elif isinstance(node, Mapping) and (inner := _select(node, keep, below)):
      chosen[name] = inner
  return chosen


def _merge(tree: Any, new: Mapping[str, Any]) -> Any:
  """`tree` with the leaves of `new` in their places."""
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


def _shorten(message: str) -> str:
  first, *lines = message.splitlines()
  listed = text.first_few(lines, most=_LISTED, separator="\n")
  return f"{first}\n{listed}" if lines else message


def _summary(
  path: str, origin: str, template: Any, filled: Any, left_out: list[str]
) -> str:
  """What was and was not loaded."""
  parts = [f"{len(jax.tree.leaves(filled))} arrays from {path} ({origin})"]
  loaded = _names(filled)
  stay = [name for name in _names(template) if name not in loaded]
  if stay:
    modules = dict.fromkeys(name.split("/")[1] for name in stay)
    parts.append(f"initial stay {len(stay)} of {', '.join(modules)}")
  if left_out:
    parts.append(f"left out {text.first_few(left_out, most=_NAMED)}")
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
