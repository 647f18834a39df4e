"""Packages that an installation may lack."""

from __future__ import annotations

import importlib.util
import sys

from paws_jax import errors

# What to install for a module, where the names differ.
_DISTRIBUTIONS = {
  "tensorflow": "'tensorflow-cpu>=2.21'",
  "tensorflow_datasets": "tensorflow-datasets importlib_resources",
}


def is_installed(module: str) -> bool:
  """Whether a module can be imported; does not import it."""
  if module in sys.modules:
    # None keeps it from being imported.
    return sys.modules[module] is not None
  return importlib.util.find_spec(module) is not None


def require(purpose: str, *modules: str) -> None:
  """Checks that modules are installed.

  Args:
    purpose: what needs them, e.g. "data.source='tfds'"; begins the message.
    *modules: names of modules.

  Raises:
    MissingPackageError: some are not; says what to install.
  """
  missing = [name for name in modules if not is_installed(name)]
  if missing:
    names = " ".join(_DISTRIBUTIONS.get(name, name) for name in missing)
    raise errors.MissingPackageError(
      f"{purpose} needs {' and '.join(missing)}, which this installation does "
      f"not have: pip install {names}"
    )
