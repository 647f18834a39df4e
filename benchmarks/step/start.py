"""How long a run takes to its first step, cold and with a warm cache.

  python -m benchmarks.step.start
  python -m benchmarks.step.start --config=configs/cifar10.py \
    --config.data.dir=/data

Starts `python -m paws_jax.main` twice, as processes of their own, each in a
workdir of its own that is thrown away: first with an empty compilation cache,
then with what the first has left there. Each is asked to stop (SIGTERM) when it
has shown its first step. Prints for both the seconds from the start of the
process to the compilation of the train step, and to the line of the first step.
(A step's numbers are fetched when the next one is on its way.) Last

  ratio: cold / warm

of the seconds to the first step, so above 1 the cache helps. With several steps
in a call (`train.steps_per_call`), the first call stands for the first step.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

from paws_jax.parallel import cpu_devices

_QUICKSTART = pathlib.Path(__file__).parents[2] / "configs" / "quickstart.py"
_COMPILING = re.compile("compiling the train step")
_FIRST_STEP = re.compile(r"step \d+/\d+ ")
# For a run that was asked to stop: it saves a checkpoint.
_MOST_SECONDS_TO_STOP = 300


@dataclasses.dataclass(frozen=True)
class Start:
  """Seconds from the start of a process.

  Attributes:
    compiling: to the compilation of the train step.
    first_step: to the line of the first step.
  """

  compiling: float
  first_step: float


class StartError(Exception):
  """A run that went wrong; `status` is what it exited with."""

  def __init__(self, status: int, message: str):
    self.status = status
    super().__init__(message)


def main() -> int:
  """Measures; returns the exit status."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument("--config", default=str(_QUICKSTART), help="the recipe")
  options, changes = parser.parse_known_args()
  unknown = [c for c in changes if not re.match(r"--config\.[\w.]+=", c)]
  if unknown:
    parser.error(
      f"unknown arguments: {' '.join(unknown)}; fields of the recipe are "
      "changed as in --config.train.batch_size=64"
    )
  arguments = [f"--config={options.config}", *changes]
  starts = {}
  with tempfile.TemporaryDirectory() as directory:
    scratch = pathlib.Path(directory)
    for name in ("cold", "warm"):
      try:
        starts[name] = _start(arguments, scratch / name, scratch / "compiled")
      except StartError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if error.status == 2 else 1
      if name == "cold":
        _print_setting(scratch / name, arguments)
      print(
        f"{name}: compiling after {starts[name].compiling:.1f} s, first step "
        f"after {starts[name].first_step:.1f} s",
        flush=True,
      )
  ratio = starts["cold"].first_step / starts["warm"].first_step
  print(f"ratio: {ratio:.2f}")
  return 0


def _start(
  arguments: list[str], workdir: pathlib.Path, cache: pathlib.Path
) -> Start:
  """Runs a recipe to its first step.

  Raises:
    StartError: the run ends before, or does not stop as it should.
  """
  command = (
    *(sys.executable, "-u", "-m", "paws_jax.main"),
    # Before what the user changes, which may be these.
    *(arguments[0], "--config.log.every_steps=1", *arguments[1:]),
    *(f"--workdir={workdir}", f"--compilation_cache={cache}"),
  )
  with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
    began = time.perf_counter()
    process = subprocess.Popen(
      command, stdout=subprocess.PIPE, stderr=errors, text=True
    )
    try:
      found, shown = _watch(process, began)
      if found is None:
        errors.seek(0)
        status = process.wait()
        raise StartError(
          status,
          f"the run ended with status {status} before its first step:\n{shown}"
          f"{errors.read()}",
        )
      process.send_signal(signal.SIGTERM)
      # Reads on, since a pipe that nobody reads stops its writer.
      process.communicate(timeout=_MOST_SECONDS_TO_STOP)
      if process.returncode:
        errors.seek(0)
        raise StartError(
          process.returncode,
          f"the run, asked to stop after its first step, ended with status "
          f"{process.returncode}:\n{errors.read()}",
        )
    except subprocess.TimeoutExpired as error:
      raise StartError(
        1,
        f"the run did not stop within {_MOST_SECONDS_TO_STOP} s of SIGTERM: is "
        "the disk of the temporary directory full or slow?",
      ) from error
    finally:
      process.kill()
      process.wait()
  return found


def _watch(
  process: subprocess.Popen[str], began: float
) -> tuple[Start | None, str]:
  """Reads a run's output up to its first step; None when it ends before."""
  compiling, shown = None, ""
  for line in process.stdout:
    passed = time.perf_counter() - began
    shown += line
    if _COMPILING.match(line):
      compiling = passed
    elif _FIRST_STEP.match(line) and compiling is not None:
      return Start(compiling=compiling, first_step=passed), shown
  return None, shown


def _print_setting(workdir: pathlib.Path, arguments: list[str]) -> None:
  """Everything that a number must be quoted with, as the run has noted it.

  This process must not ask for the devices itself: the runs need them.
  """
  path = workdir / "environment.json"
  environment = json.loads(path.read_text(encoding="utf-8"))
  devices = environment["devices"]
  platform, _, kind = devices[0].partition(": ")
  packages = environment["packages"]
  print(
    f"device: {len(devices)} x {kind} ({platform}), "
    f"{cpu_devices.num_cores()} CPU cores"
  )
  print(
    f"versions: python {environment['python']}, jax {packages['jax']}, flax "
    f"{packages['flax']}"
  )
  print(f"recipe: {' '.join(arguments)}", flush=True)


if __name__ == "__main__":
  sys.exit(main())
