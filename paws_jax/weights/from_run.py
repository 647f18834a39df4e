"""Reads the encoder of another run's newest checkpoint; changes nothing there.

Not `checkpoint.Checkpointer`: it is for a run's own process, tidies up and sets
damaged checkpoints aside, and the other run may be going on.
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
  """Whether a directory is a run's workdir."""
  return (path / workdir_lib.CHECKPOINTS).is_dir()


def steps(path: epath.Path) -> list[int]:
  """Steps of the complete checkpoints in a run's workdir, ascending."""
  directory = path / workdir_lib.CHECKPOINTS
  if not directory.is_dir():
    return []
  return sorted(int(p.name) for p in directory.iterdir() if p.name.isdigit())


def read(path: epath.Path) -> tuple[dict[str, Any], int]:
  """Reads the newest checkpoint of a run, but for the optimiser's state.

  Of several processes each reads by itself.

  Args:
    path: the run's workdir.

  Returns:
    {"params", "batch_stats"} of numpy arrays, and the step.

  Raises:
    WeightsError: when there is no checkpoint, or the newest one is damaged.
  """
  complete = steps(path)
  if not complete:
    raise errors.WeightsError(
      f"the run in {path} has no checkpoint yet: let it write one first."
    )
  step = complete[-1]
  directory = path / workdir_lib.CHECKPOINTS
  # A damaged file can surface as any exception of orbax or TensorStore.
  try:
    sealed = json.loads((directory / str(step) / "meta/metadata").read_text())
    described = json.loads(sealed["text"])["arrays"]
    restored = _restore(directory / str(step) / "state", described)
    wrong = _differing(restored, described)
  except Exception as error:
    raise _damaged(path, step, f"{type(error).__name__}: {error}") from error
  if wrong:
    raise _damaged(path, step, f"{', '.join(wrong)} differ from their digests")
  return {
    "params": restored["params"],
    "batch_stats": restored["model_state"]["batch_stats"],
  }, step


def _restore(
  directory: epath.Path, described: Mapping[str, Any]
) -> dict[str, Any]:
  item = _tree(described)
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


def _tree(described: Mapping[str, Any]) -> dict[str, Any]:
  """{"params/a/b": [shape, dtype, digest]} as a tree of shapes."""
  tree: dict[str, Any] = {}
  for name, (shape, dtype, _) in described.items():
    *path, leaf = name.split("/")
    if path and path[0] in _PARTS:
      node = tree
      for key in path:
        node = node.setdefault(key, {})
      node[leaf] = jax.ShapeDtypeStruct(tuple(shape), np.dtype(dtype))
  return tree


def _differing(
  restored: Mapping[str, Any], described: Mapping[str, Any]
) -> list[str]:
  """Names of arrays that are not as they were written."""
  names = []
  for path, leaf in jax.tree.leaves_with_path(restored):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    # One by one: a program for each shape compiles sooner than one for all.
    if int(digests.of_arrays(leaf)) != described[name][2]:
      names.append(name)
  return names


def _damaged(path: epath.Path, step: int, reason: str) -> errors.WeightsError:
  return errors.WeightsError(
    f"checkpoint {step} of the run in {path} cannot be used "
    f"({reason.splitlines()[0][:300]}): remove it to use the one before, or "
    "name another run."
  )
