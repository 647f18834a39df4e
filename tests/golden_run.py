"""The stored run of version 0.1.0: `tests/golden/run_0_1/`.

`tests/golden/README.md` says how it was made. Numbers of the run and of what
was made from it are compared bit by bit on a machine of the kind that made
them, with tolerances elsewhere: XLA compiles for the processor it finds, and
sums are rounded in another order on each.
"""

import importlib.metadata
import json
import os
import pathlib
import platform
import shutil

DIRECTORY = pathlib.Path(__file__).parent / "golden" / "run_0_1"
RUN = DIRECTORY / "run"
IMAGES = DIRECTORY / "images"
LAST_STEP = 10
# What compiles programs and what decides which programs are compiled.
_PACKAGES = ("jax", "jaxlib", "flax", "optax")


def copy(directory, *, up_to=LAST_STEP):
  """Copies the run into `directory`; returns the copy's path.

  With `up_to` before the last step, what the later steps have written is left
  out: their checkpoints, the results and the classifier.
  """
  target = pathlib.Path(directory) / "run"
  shutil.copytree(RUN, target)
  if up_to < LAST_STEP:
    for path in (target / "checkpoints").iterdir():
      if int(path.name) > up_to:
        shutil.rmtree(path)
    shutil.rmtree(target / "classifier")
    (target / "results.json").unlink()
  return target


def expected(name):
  """The content of a file in `expected/`: rows of JSON, or text."""
  text = (DIRECTORY / "expected" / name).read_text()
  return json.loads(text) if name.endswith(".json") else text


def digests(workdir, step):
  """{name: [shape, dtype, digest]} of the arrays of a checkpoint."""
  meta = pathlib.Path(workdir) / "checkpoints" / str(step) / "meta" / "metadata"
  return json.loads(json.loads(meta.read_text())["text"])["arrays"]


def same_machine():
  """Whether this machine and its packages should give the stored bits."""
  versions = json.loads((RUN / "environment.json").read_text())["packages"]
  stored = json.loads((DIRECTORY / "machine.json").read_text())
  return machine() == stored and all(
    importlib.metadata.version(name) == versions[name] for name in _PACKAGES
  )


def machine():
  """What XLA's CPU programs depend on: processor, instructions, cores."""
  first, _, _ = _cpuinfo().partition("\n\n")
  fields = dict(
    (part.strip() for part in line.split(":", 1))
    for line in first.splitlines()
    if ":" in line
  )
  flags = fields.get("flags", "").split()
  return {
    "machine": platform.machine(),
    "vendor": fields.get("vendor_id", ""),
    "family": fields.get("cpu family", ""),
    "model": fields.get("model", ""),
    "vector_instructions": sorted(
      flag for flag in flags if flag.startswith(("amx", "avx", "f16c", "fma"))
    ),
    # The linear algebra in a program is split over them.
    "cores": len(os.sched_getaffinity(0))
    if hasattr(os, "sched_getaffinity")
    else os.cpu_count(),
  }


def _cpuinfo():
  path = pathlib.Path("/proc/cpuinfo")
  return path.read_text() if path.exists() else ""
