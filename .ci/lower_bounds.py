"""Prints the lower bounds of setup.py as constraints for pip."""

import pathlib
import re
import runpy
from collections.abc import Iterator

import setuptools

_SETUP = pathlib.Path(__file__).parents[1] / "setup.py"
# name[extras]>=version; marker
_BOUND = re.compile(r"([\w.-]+)(?:\[[\w,]+\])?>=([\w.]+)(;.*)?")


def lower_bounds() -> Iterator[str]:
  """Yields `name==version; marker` for what an installation of `dev` takes."""
  fields = {}
  setuptools.setup = lambda **given: fields.update(given)
  runpy.run_path(str(_SETUP))
  for line in fields["install_requires"] + fields["extras_require"]["dev"]:
    bound = _BOUND.fullmatch(line)
    if bound:
      name, version, marker = bound.groups(default="")
      yield f"{name}=={version}{marker}"


if __name__ == "__main__":
  print(*lower_bounds(), sep="\n")
