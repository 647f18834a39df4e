"""The command line: what a mistake is answered with, and what is printed."""

import io
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from paws_jax.runs import output as output_lib
from paws_jax.runs import signals as signals_lib
from tests import forked
from tests import used_workdir

ROOT = pathlib.Path(__file__).parents[2]
RECIPE = "tests/tiny_recipe.py"


@pytest.fixture(scope="module")
def run():
  """Runs a command line in a process that has imported nothing of JAX."""
  with forked.Commands("paws_jax.main", ["paws_jax.main"]) as process:
    yield process.run


def assert_refused(result, *words):
  """Status 2, and one line on standard error that holds all the words."""
  assert result.returncode == 2, result.stderr
  assert result.stdout == ""
  assert "Traceback" not in result.stderr
  (line,) = result.stderr.splitlines()
  assert line.startswith("error: ")
  for word in words:
    assert word in line


@pytest.mark.parametrize(
  ("args", "words"),
  [
    ([], ["--config", "quickstart"]),
    (["--config=quikstart"], ["no such recipe", "--config=quickstart"]),
    (["--config=nowhere.py"], ["--config=nowhere.py", "no such file"]),
    (
      ["--config", "nowhere.py:x", "--config.train.epochs=1"],
      ["--config=nowhere.py:x", "no such file"],
    ),
    (
      ["--config=configs/image_folder.py:labtop", "--config.train.epochs=1"],
      ["image_folder.py:labtop: variant", "known are gpu, laptop"],
    ),
    (["--config=quickstart:foo"], ["quickstart:foo: this recipe has no var"]),
    (["--config=moco:foo"], ["moco:foo: variant 'foo' of moco.py: known are"]),
    (["--list", "more"], ["unknown arguments: more: leave it out"]),
    (["--config", RECIPE, "more"], ["unknown arguments: more"]),
    (["predct", "--config", RECIPE], ["predct: did you mean the task predict"]),
    (["train", "--config", RECIPE], ["did you mean the task pretrain?"]),
    (["--config", RECIPE, "doctor"], ["paws-jax doctor --config=X"]),
    (["--config", RECIPE, "--workdri=x"], ["workdri", "workdir"]),
    (["--config", RECIPE, "--task=fly"], ["task", "pretrain"]),
  ],
)
def test_wrong_flags(run, args, words):
  assert_refused(run(*args), *words)


PARSE = (
  "import sys; from paws_jax.cli import flags\n"
  "flags.parse_flags(sys.argv)\n"
  "recipe = flags.recipe()\n"
  "print(recipe.data.dir, recipe.optim.peak_lr, flags.workdir())"
)


@pytest.mark.parametrize(
  ("args", "shown"),
  [
    (["--task=evaluate", "--workdir=run"], "/a 0.3 run"),
    (
      ["--task=evaluate", "--workdir=run", "--config.data.dir=/b"],
      "/b 0.3 run",
    ),
    (
      ["--config.data.dir=/b", "--task", "report", "--workdir", "run"],
      "/b 0.3 run",
    ),
    (["--config=run/config.json"], "/a 0.3 run"),
    (["--config=run/config.json", "--config.optim.peak_lr=0.5"], "/a 0.5 run"),
    (["--config=run/config.json", "--workdir=new"], "/a 0.3 new"),
  ],
)
def test_the_recipe_of_a_run_with_changes(args, shown, tmp_path):
  used_workdir.make(tmp_path / "run", data__dir="/a", optim__peak_lr=0.3)
  result = subprocess.run(
    [sys.executable, "-c", PARSE, *args],
    cwd=tmp_path,
    env=os.environ | {"PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert (result.stdout, result.stderr) == (shown + "\n", "")


@pytest.mark.parametrize(
  ("args", "words"),
  [
    (["--config.data.dir=x"], ["--config is missing"]),
    (["--config.data.dir=x", "--workdir=nowhere"], ["--config is missing"]),
    (
      ["--config.data.dir=x", "--task=evaluate", "--workdir=nowhere"],
      ["nowhere holds no run", "config.json"],
    ),
    (["--config=nowhere/config.json"], ["there is no such file"]),
    (["--config=pyproject.toml.json"], ["there is no such file"]),
  ],
)
def test_changes_to_no_recipe(run, args, words):
  assert_refused(run(*args), *words)


@pytest.mark.parametrize(
  ("override", "words"),
  [
    ("train.epoch=3", ["field: 'epoch': did you mean 'epochs'?"]),
    ("trian.epochs=3", ["field: 'trian': did you mean 'train'?"]),
    ("sed=3", ["no such field", "'sed'"]),
    ("train.epochs=many", ["train.epochs=many: it must be an integer"]),
    ("train.epochs=1.5", ["train.epochs=1.5: it must be an integer"]),
    ("optim.peak_lr=high", ["optim.peak_lr=high: it must be a number"]),
    ("train.epochs=1000000000000000000", ["train.epochs is 10", "at most 21"]),
    ("train=3", ["train=3: it must be followed by a field of that section"]),
    ("method=cmsf", ["method=cmsf: it must be followed by a field"]),
    ("method.me_max=perhaps", ["method.me_max", "perhaps"]),
    ("train.epochs", ["Missing value", "train.epochs"]),
  ],
)
def test_wrong_fields(run, override, words):
  result = run(f"--config={RECIPE}", f"--config.{override}")
  assert_refused(result, *words)


def test_a_recipe_with_a_mistake_of_its_own_shows_where(run, tmp_path):
  recipe = tmp_path / "recipe.py"
  recipe.write_text("import math\ndef get_config():\n  return math.nothing\n")
  result = run(f"--config={recipe}")
  assert result.returncode == 1
  assert "Traceback" in result.stderr
  assert "recipe.py" in result.stderr
  assert "math" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("task", ["pretrain", "devices"])
def test_a_field_that_a_recipe_invents_is_refused(run, task, tmp_path):
  recipe = tmp_path / "recipe.py"
  recipe.write_text(
    "from tests import tiny_recipe\n"
    "def get_config():\n"
    "  config = tiny_recipe.get_config()\n"
    "  config.optim.momentun = 0.9\n"
    "  return config\n"
  )
  result = run(
    f"--config={recipe}", f"--task={task}", f"--workdir={tmp_path / 'w'}"
  )
  assert_refused(result, "optim.momentun is no field", "momentum")
  assert not (tmp_path / "w").exists()


def test_help_answers_without_jax(run):
  code = (
    "import sys; from paws_jax import main; "
    "print([m for m in ('jax', 'tensorflow', 'orbax') if m in sys.modules])"
  )
  result = subprocess.run(
    [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
  )
  assert result.stdout == "[]\n", result.stderr
  result = run("--help")
  assert "--workdir" in result.stdout
  assert "--config" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
  ("override", "words"),
  [
    ("optim.peak_lr=nan", ["optim.peak_lr is nan", "finite"]),
    ("data.source=digit", ["data.source", "digit", "digits", "idx", "tfds"]),
  ],
)
def test_wrong_values(run, override, words, tmp_path):
  result = run(
    f"--config={RECIPE}", f"--config.{override}", f"--workdir={tmp_path / 'w'}"
  )
  assert_refused(result, *words)
  assert not (tmp_path / "w").exists()


def test_signals_are_noted_and_handlers_put_back(capfd):
  before = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
  with signals_lib.Signals() as signals:
    assert signals.received is None
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.received == signal.SIGTERM
    with pytest.raises(KeyboardInterrupt):
      os.kill(os.getpid(), signal.SIGINT)
    assert signals.received == signal.SIGTERM
  after = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
  assert after == before
  assert (
    capfd.readouterr().err
    == "\nSIGTERM: finishing the current step, then saving ...\n"
  )


def test_first_interrupt_stops_and_second_interrupts(capfd):
  with signals_lib.Signals() as signals:
    os.kill(os.getpid(), signal.SIGINT)
    assert signals.received == signal.SIGINT
    with pytest.raises(KeyboardInterrupt):
      os.kill(os.getpid(), signal.SIGINT)
  assert capfd.readouterr().err.count("SIGINT") == 1


def test_output_goes_through_line_by_line(tmp_path):
  with (tmp_path / "log").open("w") as file:
    output = output_lib.Output(file)
    print("one", file=output)
    assert (tmp_path / "log").read_text() == "one\n"
    assert not output.isatty()
    assert output.name == file.name


def test_output_survives_its_reader():
  read, write = os.pipe()
  with os.fdopen(write, "w") as stream:
    output = output_lib.Output(stream)
    print("one", file=output)
    os.close(read)
    for _ in range(3):
      print("two", file=output)
      output.flush()
  # Closing the stream flushed it once more, into the void.


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", "cp1252"])
def test_any_file_name_can_be_printed(encoding):
  file = io.BytesIO()
  stream = io.TextIOWrapper(file, encoding=encoding)
  print("caf\udce9 caf\u00e9 \u6587", file=output_lib.Output(stream))
  print("the next line", file=output_lib.Output(stream))
  first, second = file.getvalue().decode(encoding).splitlines()
  assert first.startswith("caf\\udce9 caf")
  assert second == "the next line"


def test_output_of_a_process_without_one():
  output = output_lib.Output(None)
  print("nothing", file=output)
  assert not output.isatty()
  output.close()


def test_output_passes_other_errors_on():
  closed = io.StringIO()
  closed.close()
  with pytest.raises(ValueError, match="closed"):
    print("one", file=output_lib.Output(closed))


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    (["--task=report"], ["--config"]),
    (["--config", RECIPE, "--images=x"], ["--images", "predict", "pretrain"]),
    (["--task=doctor", "--classifier=x"], ["--config is missing"]),
    (["--task=embed", "--classifier=x"], ["--images is missing"]),
    (["--task=embed"], ["--config is missing", "--workdir"]),
    (
      ["--task=embed", "--classifier=x", "--images=.", "--output=e.csv"],
      ["--output=e.csv ends in neither .npz nor .parquet"],
    ),
    (
      ["--config", RECIPE, "--task=report", "--targets=torch"],
      ["--targets", "export", "report"],
    ),
    (["--task=report", "--workdir=nowhere"], ["nowhere", "holds no run"]),
    (["--config", RECIPE, "--task=plan"], ["--machine is missing", "h100:8"]),
    (
      ["--config", RECIPE, "--machine=h100:8"],
      ["--machine is read by --task=plan only", "pretrain"],
    ),
  ],
)
def test_flags_that_do_not_belong_to_the_task_are_refused(
  run, arguments, words
):
  result = run(*arguments)
  assert result.returncode == 2, result.stderr
  for word in words:
    assert word in result.stderr
  assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_former_names_run_the_same_task(run):
  former, now = (
    run("--config", RECIPE, f"--task={task}")
    for task in ("topology", "devices")
  )
  assert former.returncode == now.returncode == 0, former.stderr + now.stderr
  assert former.stdout == now.stdout
  assert former.stderr == now.stderr + (
    "notice: --task=topology is now --task=devices; both work\n"
  )


def test_a_machine_that_is_unknown_is_refused(run, tmp_path):
  result = run(
    *("--config", RECIPE, "--task=plan", "--topology=v9:2x2"),
    f"--workdir={tmp_path / 'w'}",
  )
  assert result.returncode == 2
  notice, error = result.stderr.splitlines()
  assert notice == "notice: --topology is now --machine; both work"
  assert error.startswith("error: --machine=v9:2x2: unknown chip 'v9'")
