"""Reads the encoder of another run's newest checkpoint without changing it.

`checkpoint.Checkpointer` is for a run's own process: it deletes and renames
checkpoints, and the other run may still be training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from paws_jax import errors
from paws_jax.runs import digests
from paws_jax.runs import workdir as workdir_lib

_PARTS = ("params", "model_state")


def is_run(path: epath.Path) -> bool:
  """Whether a directory is the workdir of a run."""
  return (path / workdir_lib.CHECKPOINTS).is_dir()


def steps(path: epath.Path) -> list[int]:
  """Returns the steps of the complete checkpoints of a run, ascending."""
  directory = path / workdir_lib.CHECKPOINTS
  if not directory.is_dir():
    return []
  return sorted(int(p.name) for p in directory.iterdir() if p.name.isdigit())


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
  complete = steps(path)
  if not complete:
    raise errors.WeightsError(
      f"the run in {path} has no checkpoint yet: wait until it has written one."
    )
  step = complete[-1]
  directory = path / workdir_lib.CHECKPOINTS
  # A damaged file can surface as any exception of orbax or TensorStore.
  try:
    metadata = json.loads((directory / str(step) / "meta/metadata").read_text())
    stored = json.loads(metadata["text"])["arrays"]
    restored = _restore(directory / str(step) / "state", stored)
    changed = _changed_arrays(restored, stored)
  except Exception as error:
    raise _damaged(path, step, f"{type(error).__name__}: {error}") from error
  if changed:
    names = ", ".join(changed)
    raise _damaged(path, step, f"{names} differ from their digests")
  return {
    "params": restored["params"],
    "batch_stats": restored["model_state"]["batch_stats"],
  }, step


def _restore(
  directory: epath.Path, stored: Mapping[str, Any]
) -> dict[str, Any]:
  item = _tree(stored)
  as_numpy = jax.tree.map(
    lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item
  )
  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
    return reader.restore(
      directory,
      args=ocp.args.PyTreeRestore(
        item=item, restore_args=as_numpy, partial_restore=True
      ),
    )


def _tree(stored: Mapping[str, Any]) -> dict[str, Any]:
  """Makes a tree of shapes of {"params/a/b": [shape, dtype, digest]}."""
  tree: dict[str, Any] = {}
  for name, (shape, dtype, _) in stored.items():
    *path, leaf = name.split("/")
    if path and path[0] in _PARTS:
      node = tree
      for key in path:
        node = node.setdefault(key, {})
      node[leaf] = jax.ShapeDtypeStruct(tuple(shape), np.dtype(dtype))
  return tree


def _changed_arrays(
  restored: Mapping[str, Any], stored: Mapping[str, Any]
) -> list[str]:
  """Returns the names of arrays that differ from their stored digest."""
  names = []
  for path, leaf in jax.tree.leaves_with_path(restored):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    # One by one: a program per shape compiles faster than one for all arrays.
    if int(digests.compute(leaf)) != stored[name][2]:
      names.append(name)
  return names


def _damaged(path: epath.Path, step: int, reason: str) -> errors.WeightsError:
  return errors.WeightsError(
    f"checkpoint {step} of the run in {path} cannot be used "
    f"({reason.splitlines()[0][:300]}): remove it to use the previous one, "
    "or name another run."
  )
