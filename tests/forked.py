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
_DRIVER = f"""
import importlib, json, os, runpy, sys, warnings
module, directory, commands = sys.argv[1:]
for name in {_IMPORTS}:
  importlib.import_module(name)
for number, command in enumerate(json.loads(commands)):
  with warnings.catch_warnings():
    # JAX warns of forks, but has no backend yet.
    warnings.simplefilter("ignore")
    child = os.fork()
  if not child:
    for descriptor, name in ((1, "out"), (2, "err")):
      path = os.path.join(directory, f"{{number}}.{{name}}")
      os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    sys.argv = [module, *command]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit()
  print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def run(module, commands, **environ):
  """Runs `python -m module` with each list of arguments.

  Args:
    module: a name.
    commands: arguments of each.
    **environ: more environment variables.

  Returns:
    A `subprocess.CompletedProcess` of each command.
  """
  commands = [list(map(str, command)) for command in commands]
  with tempfile.TemporaryDirectory() as directory:
    driver = subprocess.run(
      [sys.executable, "-c", _DRIVER, module, directory, json.dumps(commands)],
      cwd=_ROOT,
      env=os.environ
      | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(_ROOT)}
      | environ,
      capture_output=True,
      text=True,
      check=False,
    )
    assert driver.returncode == 0, driver.stderr
    statuses = map(int, driver.stdout.split())
    return [
      subprocess.CompletedProcess(
        command,
        status,
        *(
          pathlib.Path(directory, f"{number}.{name}").read_text()
          for name in ("out", "err")
        ),
      )
      for number, (command, status) in enumerate(
        zip(commands, statuses, strict=True)
      )
    ]
