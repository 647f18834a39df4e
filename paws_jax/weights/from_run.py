"""Reads the encoder of another run's newest checkpoint without changing it.

`checkpoint.Checkpointer` is for a run's own process: it deletes and renames
checkpoints, and the other run may still be training.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from flax import traverse_util

from paws_jax import errors
from paws_jax import json_text
from paws_jax import methods
from paws_jax.methods import base
from paws_jax.runs import checkpoint_tree
from paws_jax.runs import digests
from paws_jax.runs import newest_checkpoint
from paws_jax.runs import recipe as recipe_lib
from paws_jax.runs import workdir as workdir_lib

# Before the names of arrays of the item beside the state.
_EXTRA = "extra/"


def is_run(path: epath.Path) -> bool:
  """Whether a directory is the workdir of a run."""
  return (path / workdir_lib.CHECKPOINTS).is_dir()


def read(path: epath.Path) -> tuple[dict[str, Any], int]:
  """Reads the newest checkpoint of a run, without the optimizer's state.

  With several processes each reads by itself.

  Args:
    path: the run's workdir.

  Returns:
    {"params", "batch_stats"} of numpy arrays, and the step.

  Raises:
    WeightsError: the run has no checkpoint, or the newest one is damaged.
  """
  complete = newest_checkpoint.steps(path)
  if not complete:
    raise errors.WeightsError(
      f"the run in {path} has no checkpoint yet: wait until it has written one."
    )
  step = complete[-1]
  directory = path / workdir_lib.CHECKPOINTS / str(step)
  # A damaged file can surface as any exception of orbax or TensorStore.
  try:
    sealed = json_text.parse((directory / "meta/metadata").read_bytes())
    # Means of metrics that are only monitored need not be finite.
    content = json_text.parse(sealed["text"], non_finite=True)
    described = content["arrays"] | {
      f"{_EXTRA}{name}": entry
      for name, entry in content.get("extra", {}).items()
    }
    names = _encoder_names(path, described)
    arrays = _restore(directory, described, jax.tree.leaves(names))
    wrong = _differing(arrays, described)
  except errors.UserError:
    raise
  except Exception as error:
    raise _damaged(path, step, f"{type(error).__name__}: {error}") from error
  if wrong:
    raise _damaged(path, step, f"{', '.join(wrong)} differ from their digests")
  return jax.tree.map(arrays.__getitem__, names), step


def _method(path: epath.Path) -> base.Method:
  """The method of a run, which knows where its encoder is."""
  stored = recipe_lib.stored_recipe(path)
  if stored is None:
    return base.Method()
  kind = methods.METHODS[stored.method.name]
  return kind(config=stored.method)


def _encoder_names(path: epath.Path, described: Mapping[str, Any]) -> Any:
  """The encoder's variables, with the name of each array in its place.

  Raises:
    errors.WeightsError: when the method cannot say which arrays they are.
  """
  method = _method(path)
  try:
    return method.encoder_variables(_state_of_names(described))
  except Exception as error:
    raise errors.WeightsError(
      f"the encoder of the run in {path} cannot be found: "
      f"{type(method).__name__}.encoder_variables does not select it from "
      f"nested dictionaries ({type(error).__name__}: {error}). The checkpoint "
      "is not damaged: give the directory of the run's classifier instead."
    ) from error


def _state_of_names(described: Mapping[str, Any]) -> types.SimpleNamespace:
  """A train state that has an array's stored name in the array's place."""
  extra = [name for name in described if name.startswith(_EXTRA)]
  state = traverse_util.unflatten_dict(
    {name: name for name in described if name not in extra}, sep="/"
  )
  return types.SimpleNamespace(
    params=state["params"],
    batch_stats=state.get("model_state", {}).get("batch_stats", {}),
    extra=traverse_util.unflatten_dict(
      {name.removeprefix(_EXTRA): name for name in extra}, sep="/"
    ),
  )


def _restore(
  directory: epath.Path, described: Mapping[str, Any], names: Sequence[str]
) -> dict[str, np.ndarray]:
  """Reads arrays of a checkpoint by their names; no others."""
  arrays: dict[str, np.ndarray] = {}
  for item, prefix in (("state", ""), ("extra", _EXTRA)):
    mine = [n for n in names if n.startswith(_EXTRA) == bool(prefix)]
    if not mine:
      continue
    shapes = {
      name.removeprefix(prefix): jax.ShapeDtypeStruct(
        tuple(described[name][0]), np.dtype(described[name][1])
      )
      for name in mine
    }
    found = checkpoint_tree.read_arrays(directory / item, shapes)
    arrays |= {prefix + name: array for name, array in found.items()}
  return arrays


def _differing(
  arrays: Mapping[str, np.ndarray], described: Mapping[str, Any]
) -> list[str]:
  """Names of arrays that are not as they were written."""
  return [
    name
    for name, array in arrays.items()
    if int(digests.compute(array)) != described[name][2]
  ]


def _damaged(path: epath.Path, step: int, reason: str) -> errors.WeightsError:
  return errors.WeightsError(
    f"checkpoint {step} of the run in {path} cannot be used "
    f"({reason.splitlines()[0][:300]}): remove it to use the previous one, "
    "or name another run."
  )
