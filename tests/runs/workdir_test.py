"""What may be done with the directory of a run."""

import errno
import json
import os
import subprocess
import sys
import types

import pytest
from etils.epath import gpath
from etils.epath import testing as epath_testing

from paws_jax import config as config_lib
from paws_jax import errors as errors_lib
from paws_jax.config import upgrade
from paws_jax.runs import files
from paws_jax.runs import growing_file
from paws_jax.runs import locks
from paws_jax.runs import metrics
from paws_jax.runs import provenance
from paws_jax.runs import recipe as recipe_lib
from paws_jax.runs import results
from paws_jax.runs import workdir
from tests import used_workdir


def test_makes_the_directory_and_writes_the_recipe(tmp_path):
  path = workdir.prepare(tmp_path / "a" / "b", used_workdir.recipe(seed=7))
  assert path == tmp_path / "a" / "b"
  stored = json.loads((path / recipe_lib.RECIPE).read_text())
  assert stored["seed"] == 7
  assert stored["views"]["mean"] == [0.485, 0.456, 0.406]
  # All fields are there: the file alone says what was run.
  assert stored == upgrade.write(
    config_lib.resolve(used_workdir.recipe(seed=7))
  )


def test_the_path_is_absolute(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("HOME", str(tmp_path / "home"))
  assert (
    workdir.prepare("runs/x", used_workdir.recipe()) == tmp_path / "runs" / "x"
  )
  assert (
    workdir.prepare("~/y", used_workdir.recipe()) == tmp_path / "home" / "y"
  )


def test_the_same_recipe_may_go_on(tmp_path):
  path = used_workdir.make(tmp_path, optim__peak_lr=0.1)
  before = (path / recipe_lib.RECIPE).read_text()
  workdir.prepare(path, used_workdir.recipe(optim__peak_lr=0.1))
  assert (path / recipe_lib.RECIPE).read_text() == before


def test_a_result_alone_is_protected_too(tmp_path):
  workdir.prepare(tmp_path, used_workdir.recipe())
  results.append_result(tmp_path, {"top1": 1.0})
  with pytest.raises(errors_lib.WorkdirError, match="seed"):
    workdir.prepare(tmp_path, used_workdir.recipe(seed=1))


def test_a_run_that_left_nothing_may_be_replaced(tmp_path):
  # It did not fit into memory, say, and the error said what to lower.
  workdir.prepare(tmp_path, used_workdir.recipe())
  workdir.write_split(tmp_path, {"hash": "a" * 64})
  (tmp_path / workdir.CHECKPOINTS).mkdir()
  workdir.prepare(tmp_path, used_workdir.recipe(train__batch_size=32))
  workdir.write_split(tmp_path, {"hash": "b" * 64})
  stored = json.loads((tmp_path / recipe_lib.RECIPE).read_text())
  assert stored["train"]["batch_size"] == 32


def test_a_directory_that_cannot_be_written_is_refused(tmp_path):
  (tmp_path / "file").write_text("in the way")
  for path in (tmp_path / "file", tmp_path / "file" / "below"):
    with pytest.raises(errors_lib.WorkdirError, match="cannot be written"):
      workdir.prepare(path, used_workdir.recipe())


def test_another_split_is_refused(tmp_path):
  path = used_workdir.make(tmp_path)
  split = {"hash": "a" * 64, "labelled_ids": [1, 5]}
  workdir.write_split(path, split)
  workdir.write_split(path, split)
  assert json.loads((path / "split.json").read_text()) == split
  with pytest.raises(errors_lib.WorkdirError) as caught:
    workdir.write_split(path, {"hash": "b" * 64})
  assert "hash aaaaaaaaaaaa, now bbbbbbbbbbbb" in str(caught.value)
  assert json.loads((path / "split.json").read_text()) == split


@pytest.mark.parametrize("text", ['{"hash": 3}', '{"hash": null}', "[" * 10**5])
def test_a_damaged_split_is_refused(tmp_path, text):
  path = used_workdir.make(tmp_path)
  (path / "split.json").write_text(text)
  with pytest.raises(errors_lib.WorkdirError, match=r"split\.json is "):
    workdir.write_split(path, {"hash": "b" * 64})
  assert (path / "split.json").read_text() == text


def test_a_refused_command_leaves_the_recipe_as_it_was(tmp_path):
  workdir.prepare(tmp_path, used_workdir.recipe())
  workdir.write_split(tmp_path, {"hash": "a" * 64})
  (tmp_path / workdir.CHECKPOINTS / "4").mkdir(parents=True)
  before = (tmp_path / recipe_lib.RECIPE).read_text()
  with pytest.raises(errors_lib.WorkdirError, match="labelled images"):
    workdir.prepare(
      tmp_path, used_workdir.recipe(train__epochs=140), {"hash": "b" * 64}
    )
  assert (tmp_path / recipe_lib.RECIPE).read_text() == before


def test_one_process_at_a_time_uses_a_directory(tmp_path):
  holder = (
    "import pathlib, sys\n"
    "from paws_jax.runs import workdir\n"
    "with workdir.lock(pathlib.Path(sys.argv[1])):\n"
    "  print('locked', flush=True)\n"
    "  sys.stdin.read()\n"
  )
  path = workdir.prepare(tmp_path, used_workdir.recipe())
  with subprocess.Popen(
    [sys.executable, "-c", holder, str(path)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  ) as other:
    assert other.stdout.readline() == "locked\n"
    before = (path / recipe_lib.RECIPE).read_text()
    with pytest.raises(
      errors_lib.WorkdirError, match=f"in use by process {other.pid} on "
    ):
      workdir.prepare(tmp_path, used_workdir.recipe(seed=1))
    assert (path / recipe_lib.RECIPE).read_text() == before
    # However it ends, its lock is gone.
    other.kill()
    other.wait()
    workdir.prepare(tmp_path, used_workdir.recipe(seed=1))
    assert (path / recipe_lib.RECIPE).read_text() != before


def test_a_run_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
  workdir.check_writable(tmp_path)
  assert not list(tmp_path.iterdir())

  def refuse(**unused):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))

  monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)
  with pytest.raises(
    errors_lib.WorkdirError, match=r"\(Read-only.*\): results are written th"
  ):
    workdir.check_writable(tmp_path)


def test_a_file_system_without_locks_is_used_without(tmp_path, monkeypatch):
  def no_locks(*_):
    raise OSError(errno.ENOLCK, "No locks available")

  monkeypatch.setattr(locks.fcntl, "flock", no_locks)
  with workdir.lock(tmp_path), workdir.lock(tmp_path):
    pass


def test_a_system_without_locks_says_so(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(locks, "fcntl", None)
  monkeypatch.setattr(locks, "AVAILABLE", False)
  with workdir.run_lock(tmp_path), workdir.lock(tmp_path):
    assert f"command on --workdir={tmp_path}" in capsys.readouterr().out


def test_a_directory_that_others_do_not_see_is_refused(tmp_path):
  path = workdir.prepare(tmp_path / "a", used_workdir.recipe())
  start = provenance.write_environment(path)
  provenance.check_shared(path, start)
  # The same recipe, in a directory of the same name on another machine.
  other = workdir.prepare(tmp_path / "b", used_workdir.recipe())
  for write in (lambda: None, lambda: provenance.write_environment(other)):
    write()
    with pytest.raises(errors_lib.WorkdirError, match="all processes need one"):
      provenance.check_shared(other, start)


def test_errors_of_a_bucket_are_those_of_tensorflow(bucket, monkeypatch):
  class OpError(Exception):
    pass

  errors = types.SimpleNamespace(OpError=OpError)
  fake = types.SimpleNamespace(errors=errors)
  monkeypatch.setitem(sys.modules, "tensorflow", fake)
  assert workdir.storage_errors() == (OSError, OpError)

  def denied(*_):
    raise OpError("403: no access\nand more")

  monkeypatch.setattr(files, "replace_text", denied)
  with pytest.raises(
    errors_lib.WorkdirError,
    match=r"cannot be written \(403: no access\): choose",
  ):
    workdir.prepare("gs://bucket/run", used_workdir.recipe())


@pytest.fixture
def bucket(tmp_path, monkeypatch):
  """Makes gs://bucket a directory of this machine."""

  def local(path):
    return os.fspath(path).replace("gs://bucket", str(tmp_path / "bucket"))

  def moved(original, path, *others, **options):
    return original(local(path), *map(local, others), **options)

  def globbed(original, path):
    found = original(local(path))
    return [
      name.replace(str(tmp_path / "bucket"), "gs://bucket") for name in found
    ]

  def opened(original, path, mode):
    return original(local(path), mode)

  # It would be asked in place of what follows.
  monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)
  names = ("exists", "isdir", "listdir", "makedirs", "mkdir", "replace")
  with epath_testing.mock_epath(
    glob=globbed, open=opened, **dict.fromkeys(names, moved)
  ):
    yield tmp_path / "bucket"


def test_a_directory_may_lie_in_a_bucket(bucket, monkeypatch):
  path = workdir.prepare(
    "gs://bucket/run", used_workdir.recipe(), {"hash": "abc"}
  )
  assert os.fspath(path) == "gs://bucket/run"
  workdir.write_split(path, {"hash": "abc"})
  provenance.write_environment(path)
  writer = metrics.Writer(path, first_step=0)
  writer.write(1, {"loss": 2})
  # An object cannot grow, and is not written anew for every line.
  assert metrics.read(path / metrics.METRICS) == []
  # Before a checkpoint it is.
  writer.flush()
  assert len(metrics.read(path / metrics.METRICS)) == 1
  monkeypatch.setattr(growing_file, "_OBJECT_SECONDS", 0)
  writer.write(2, {"loss": 1})
  assert len(metrics.read(path / metrics.METRICS)) == 2
  writer.close()
  results.append_result(path, {"task": "pretrain"})
  # What is there is found again, and compared.
  workdir.prepare("gs://bucket/run", used_workdir.recipe(), {"hash": "abc"})
  with pytest.raises(errors_lib.WorkdirError, match="seed: 0 there, 1 now"):
    workdir.prepare(
      "gs://bucket/run", used_workdir.recipe(seed=1), {"hash": "abc"}
    )
  writer = metrics.Writer(path, first_step=1)
  writer.write(2, {"loss": 3})
  writer.close()
  rows = metrics.read(path / metrics.METRICS)
  assert rows == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 3.0}]
  assert sorted(file.name for file in (bucket / "run").iterdir()) == [
    "config.json",
    "environment.json",
    "metrics.jsonl",
    "results.json",
    "split.json",
  ]


def test_a_run_is_opened_for_looking_only_with_its_recipe(tmp_path):
  config = config_lib.base()
  split = {"hash": "a" * 64}
  with pytest.raises(errors_lib.WorkdirError, match="pre-train first"):
    workdir.open_run(tmp_path, config_lib.resolve(config), split)
  workdir.prepare(tmp_path, config_lib.resolve(config))
  before = sorted(tmp_path.iterdir())
  assert (
    workdir.open_run(tmp_path, config_lib.resolve(config), split) == tmp_path
  )
  assert sorted(tmp_path.iterdir()) == before
  config.seed = 3
  with pytest.raises(errors_lib.WorkdirError, match="seed: 0 there, 3 now"):
    workdir.open_run(tmp_path, config_lib.resolve(config), split)


def test_an_edited_split_is_kept_where_it_is_written_again(tmp_path, capsys):
  split = {"hash": "1234", "labelled_ids": (1, 2)}
  path = tmp_path / "split.json"
  workdir.write_split(tmp_path, split)
  workdir.write_split(tmp_path, split)
  path.write_text(path.read_text().replace("2", "3"))
  edited = path.read_bytes()
  path.write_text(json.dumps({"hash": "1234", "labelled_ids": [1, 3]}))
  edited = path.read_bytes()
  workdir.write_split(tmp_path, split)
  assert (tmp_path / "split.old.json").read_bytes() == edited
  assert json.loads(path.read_text())["labelled_ids"] == [1, 2]
  assert "is kept as split.old.json" in capsys.readouterr().out


def test_all_that_is_written_is_checked_before_it_is_computed(tmp_path):
  workdir.check_writable(tmp_path, "evaluation/table.csv")
  (tmp_path / "evaluation").write_text("mine")
  with pytest.raises(
    errors_lib.WorkdirError, match=r"evaluation/table\.csv can"
  ):
    workdir.check_writable(tmp_path, "evaluation/table.csv")
