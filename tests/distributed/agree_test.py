"""Exchange of values and errors between real processes."""

import pytest

from paws_jax.distributed import agree
from tests import processes

START = """
import sys
process, num_processes, port = map(int, sys.argv[1:])
from paws_jax.distributed import agree as agreement
from paws_jax.distributed import launch as launch_lib
from paws_jax.distributed import lifecycle
lifecycle.initialize(
  launch_lib.Launch(f"localhost:{port}", num_processes, process, "test"),
  timeout_seconds=60,
)
def caught(function, *args, **options):
  try:
    function(*args, **options)
  except Exception as error:
    print(type(error).__name__, error)
  else:
    print("no error")
"""


def _run(code, num_processes):
  with processes.start_code(
    f"{START}{code}", num_processes=num_processes
  ) as group:
    return group.wait(seconds=120)


def test_alone():
  agree.agree(recipe="{}")
  assert agree.gather({"a": 1}) == [{"a": 1}]
  assert agree.on_main(lambda: 3) == 3

  def fail():
    raise OSError("disk full")

  with pytest.raises(OSError, match="disk full"):
    agree.on_main(fail)


@pytest.mark.slow
def test_gather_and_calls_on_one_process_or_all():
  code = """
print(agreement.gather({"number": process, "text": "ä" * process}))
print(agreement.on_main(lambda: print("done") or 7))
def fail():
  raise ValueError("no room")
caught(agreement.on_main, fail)
def break_down():
  raise OSError("disk full")
caught(agreement.on_main, break_down)
def missing():
  if process:
    raise FileNotFoundError("no such data")
  return 3
caught(agreement.on_all, missing)
"""
  first, other = _run(code, 2)
  gathered = "[{'number': 0, 'text': ''}, {'number': 1, 'text': 'ä'}]"
  assert processes.lines(first) == [
    gathered,
    "done",
    "7",
    "ValueError no room",
    "OSError disk full",
    "InputError process 1: no such data",
  ]
  assert processes.lines(other) == [
    gathered,
    "None",
    "InputError process 0: no room",
    "DistributedError process 0: disk full",
    "FileNotFoundError no such data",
  ]


@pytest.mark.slow
def test_differences_are_named():
  code = """
agreement.agree(a="same", recipe='{"x": {"y": 1}}')
caught(agreement.agree, version=str(process // 2), other="same")
recipe = '{"train": {"batch_size": %d}, "seed": 0%s}'
recipe %= (64 if process == 1 else 128, ', "more": [1]' if process else "")
caught(agreement.agree, recipe=recipe)
caught(agreement.agree, text="same " * 50 + "end" * process)
"""
  for finished in _run(code, 3):
    assert finished.status == 0, finished.err
    assert processes.lines(finished) == [
      "DisagreementError the processes do not agree: version is 0 on "
      "processes 0, 1, 1 on process 2. Give all the same, and the same versions"
      " of the code.",
      "DisagreementError the processes do not agree: train.batch_size is 128 on"
      " processes 0, 2, 64 on process 1; more is missing on process 0, [1] on "
      "processes 1, 2. Give all the same, and the same versions of the code.",
      "DisagreementError the processes do not agree: text is ..."
      + "same " * 4
      + "... on process 0, ..."
      + "same " * 4
      + "end... on process 1, ..."
      + "same " * 4
      + "endend... on process 2. Give all the same, and the same versions of "
      "the code.",
    ]
