"""Former import paths, which still work.

Nothing is imported before it is used. A former module is one without names of
its own, which finds each in the modules that have them now.
"""

from __future__ import annotations

import functools
import importlib
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

# Former module: the modules that have its names now.
MODULES = {
  "paws_jax.abstract_step": ("paws_jax.plan.abstract_step",),
  "paws_jax.checkpoint": ("paws_jax.runs.checkpoint", "paws_jax.errors"),
  "paws_jax.data.decode": ("paws_jax.data.host.decode", "paws_jax.errors"),
  "paws_jax.evaluate": (
    "paws_jax.evaluation.soft_nn",
    "paws_jax.evaluation.embed",
    "paws_jax.evaluation.accuracy",
  ),
  "paws_jax.experiment": ("paws_jax.training.experiment",),
  "paws_jax.interop": ("paws_jax.weights",),
  "paws_jax.interop.torch_weights": ("paws_jax.weights.write_torch",),
  "paws_jax.notebook": ("paws_jax.cli.notebook",),
  "paws_jax.program_audit": ("paws_jax.plan.hlo",),
  "paws_jax.sharding": (
    "paws_jax.parallel.mesh",
    "paws_jax.parallel.cpu_devices",
  ),
  "paws_jax.train": (
    "paws_jax.training.step",
    "paws_jax.training.state",
    "paws_jax.training.loop",
    "paws_jax.errors",
  ),
}
# Former module: new names by former names.
RENAMED = {
  "paws_jax.augment": {"normalise": "normalize"},
  "paws_jax.program_audit": {"dtypes_of": "operation_dtypes"},
}
# Package that was a module: the modules that have its names now.
_PACKAGES = {
  "paws_jax": {
    "Classifier": "paws_jax.classifier.classifier",
    "PawsClassifier": "paws_jax.estimator.estimator",
  },
  "paws_jax.augment": {"normalise": "paws_jax.augment.views"},
  "paws_jax.classifier": {
    "Classifier": "paws_jax.classifier.classifier",
    "from_trained": "paws_jax.training.save_classifier",
  },
  "paws_jax.data.sources": dict.fromkeys(
    ("Arrays", "load"), "paws_jax.data.sources.arrays"
  ),
}


def names_of(package: str) -> Callable[[str], Any]:
  """Makes the `__getattr__` of a package that was a module."""
  places = _PACKAGES[package]

  def get(name: str) -> Any:
    return _find(package, (places[name],) if name in places else (), name)

  return get


def _find(module: str, places: Sequence[str], name: str) -> Any:
  """Imports modules in turn until one has the attribute."""
  new_name = RENAMED.get(module, {}).get(name, name)
  for place in places:
    current = importlib.import_module(place)
    if hasattr(current, new_name):
      return getattr(current, new_name)
  raise AttributeError(f"module {module!r} has no attribute {name!r}")


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
  """Finds former modules, after Python has found no file of that name."""

  def find_spec(
    self, fullname: str, path: Any, target: Any = None
  ) -> importlib.machinery.ModuleSpec | None:
    del path, target
    if fullname not in MODULES:
      return None
    is_package = any(name.startswith(f"{fullname}.") for name in MODULES)
    return importlib.machinery.ModuleSpec(fullname, self, is_package=is_package)

  def exec_module(self, module: types.ModuleType) -> None:
    name = module.__name__
    vars(module)["__getattr__"] = functools.partial(_find, name, MODULES[name])


def install() -> None:
  """Makes former modules importable."""
  sys.meta_path.append(_Finder())
