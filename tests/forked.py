"""Several commands of one script, from one process that has imported it.

For what a script refuses: importing takes seconds, refusing next to nothing.
Each command runs in a child of that process, with a Python state of its own.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

_ROOT = pathlib.Path(__file__).parents[1]
# What the scripts import, but for themselves: they define flags once only.
_IMPORTS = (
  "flax.linen",
  "jax",
  "ml_collections",
  "optax",
  "orbax.checkpoint",
  "paws_jax.training.experiment",
  "sklearn.datasets",
)
_DRIVER = """
import importlib, json, os, runpy, sys, warnings
module, directory, imports = sys.argv[1:]
for name in json.loads(imports):
  importlib.import_module(name)
for number, line in enumerate(sys.stdin):
  with warnings.catch_warnings():
    # JAX warns of forks, but has no backend yet.
    warnings.simplefilter("ignore")
    child = os.fork()
  if not child:
    streams = (0, os.devnull), (1, f"{number}.out"), (2, f"{number}.err")
    for descriptor, name in streams:
      mode = os.O_WRONLY | os.O_CREAT if descriptor else os.O_RDONLY
      os.dup2(os.open(os.path.join(directory, name), mode), descriptor)
    sys.argv = [module, *json.loads(line)]
    sys.modules.pop(module, None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit()
  print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Commands:
  """Runs `python -m module` with one list of arguments after the other."""

  def __init__(self, module, imports=_IMPORTS, **environ):
    """Starts the process that imports.

    Args:
      module: a name.
      imports: names of what is imported before the first command.
      **environ: more environment variables.
    """
    self._directory = tempfile.TemporaryDirectory()
    self._number = 0
    self._driver = subprocess.Popen(
      [
        *(sys.executable, "-c", _DRIVER, module, self._directory.name),
        json.dumps(imports),
      ],
      cwd=_ROOT,
      env=os.environ
      | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(_ROOT)}
      | environ,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._driver.stdin.close()
    self._driver.wait()
    self._driver.stdout.close()
    self._directory.cleanup()

  def run(self, *command):
    """Returns a `subprocess.CompletedProcess` of a command."""
    command = list(map(str, command))
    self._driver.stdin.write(json.dumps(command) + "\n")
    self._driver.stdin.flush()
    status = self._driver.stdout.readline()
    assert status, "the process that imports has ended"
    out, err = (
      pathlib.Path(self._directory.name, f"{self._number}.{name}").read_text()
      for name in ("out", "err")
    )
    self._number += 1
    return subprocess.CompletedProcess(command, int(status), out, err)


def run(module, commands, **environ):
  """Returns a `subprocess.CompletedProcess` of each command."""
  with Commands(module, **environ) as process:
    return [process.run(*command) for command in commands]
