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
from paws_jax.runs import metrics
from paws_jax.runs import provenance
from paws_jax.runs import recipe as recipe_lib
from paws_jax.runs import results
from paws_jax.runs import workdir


def recipe(**changes):
  config = config_lib.base()
  for name, value in changes.items():
    config.update_from_flattened_dict({name.replace("__", "."): value})
  return config


def used(path, **changes):
  """A workdir with a run that has left a checkpoint."""
  workdir.prepare(path, recipe(**changes))
  (path / workdir.CHECKPOINTS / "55").mkdir(parents=True)
  return path


def test_makes_the_directory_and_writes_the_recipe(tmp_path):
  path = workdir.prepare(tmp_path / "a" / "b", recipe(seed=7))
  assert path == tmp_path / "a" / "b"
  stored = json.loads((path / recipe_lib.RECIPE).read_text())
  assert stored["seed"] == 7
  assert stored["views"]["mean"] == [0.485, 0.456, 0.406]
  # All fields are there: the file alone says what was run.
  assert stored == upgrade.write(config_lib.resolve(recipe(seed=7)))


def test_the_path_is_absolute(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("HOME", str(tmp_path / "home"))
  assert workdir.prepare("runs/x", recipe()) == tmp_path / "runs" / "x"
  assert workdir.prepare("~/y", recipe()) == tmp_path / "home" / "y"


def test_the_same_recipe_may_go_on(tmp_path):
  path = used(tmp_path, optim__peak_lr=0.1)
  before = (path / recipe_lib.RECIPE).read_text()
  workdir.prepare(path, recipe(optim__peak_lr=0.1))
  assert (path / recipe_lib.RECIPE).read_text() == before


def test_another_recipe_is_refused_with_what_differs(tmp_path):
  path = used(tmp_path)
  before = (path / recipe_lib.RECIPE).read_text()
  with pytest.raises(errors_lib.WorkdirError) as caught:
    workdir.prepare(
      path, recipe(seed=1, optim__peak_lr=0.5, views__large__scale=(0.2, 1.0))
    )
  message = str(caught.value)
  assert "seed: 0 there, 1 now" in message
  assert "optim.peak_lr: 6.4 there, 0.5 now" in message
  assert "views.large.scale: [0.14, 1.0] there, [0.2, 1.0] now" in message
  assert message.count(" there, ") == 3
  assert "another --workdir" in message
  assert (path / recipe_lib.RECIPE).read_text() == before


@pytest.mark.parametrize(
  "change",
  [
    {"log__every_steps": 10},
    {"log__next_command": "make tea"},
    {"eval__every_steps": 10},
    {"checkpoint__every_steps": 10},
    {"train__epochs": 101},
  ],
)
def test_what_may_change_on_the_way(tmp_path, change):
  path = used(tmp_path)
  workdir.prepare(path, recipe(**change))
  stored = json.loads((path / recipe_lib.RECIPE).read_text())
  assert stored == upgrade.write(config_lib.resolve(recipe(**change)))


def test_epochs_may_not_shrink(tmp_path):
  used(tmp_path)
  with pytest.raises(
    errors_lib.WorkdirError, match=r"train\.epochs: 100 there, 99 now"
  ):
    workdir.prepare(tmp_path, recipe(train__epochs=99))


def test_fields_that_are_newer_than_the_run_had_their_defaults(tmp_path):
  path = used(tmp_path)
  stored = json.loads((path / recipe_lib.RECIPE).read_text())
  del stored["optim"]["momentum"]
  del stored["train"]["epochs"]
  (path / recipe_lib.RECIPE).write_text(json.dumps(stored))
  with pytest.raises(errors_lib.WorkdirError) as caught:
    workdir.prepare(path, recipe(optim__momentum=0.5, train__epochs=99))
  assert "optim.momentum: 0.9 there, 0.5 now" in str(caught.value)
  assert "train.epochs: 100 there, 99 now" in str(caught.value)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (
      {"data": {"old": 3}},
      r"fields: data\.old is no field of section data;",
    ),
    ({"version": 99}, "version 99, and this program knows versions 0 to"),
  ],
)
def test_fields_of_another_version_are_refused(tmp_path, change, message):
  path = used(tmp_path)
  stored = json.loads((path / recipe_lib.RECIPE).read_text())
  (path / recipe_lib.RECIPE).write_text(json.dumps(stored | change))
  with pytest.raises(errors_lib.WorkdirError, match=message):
    workdir.prepare(path, recipe())


def test_a_run_of_another_method_is_told_without_its_other_fields(tmp_path):
  path = used(tmp_path)
  other = recipe(method=config_lib.method_section("supervised"))
  with pytest.raises(errors_lib.WorkdirError) as caught:
    workdir.prepare(path, other)
  assert "method.name: paws there, supervised now" in str(caught.value)
  assert str(caught.value).count(" there, ") == 1


def test_a_run_of_version_0_continues(tmp_path):
  path = used(tmp_path)
  stored = json.loads((path / recipe_lib.RECIPE).read_text())
  del stored["version"]
  # Version 0 stored the fields of all methods.
  stored["method"] |= {"detached_keys": False, "num_iterations": 20}
  (path / recipe_lib.RECIPE).write_text(json.dumps(stored))
  workdir.prepare(path, recipe())
  stored = json.loads((path / recipe_lib.RECIPE).read_text())
  assert stored == upgrade.write(config_lib.resolve(recipe()))


def test_a_result_alone_is_protected_too(tmp_path):
  workdir.prepare(tmp_path, recipe())
  results.append_result(tmp_path, {"top1": 1.0})
  with pytest.raises(errors_lib.WorkdirError, match="seed"):
    workdir.prepare(tmp_path, recipe(seed=1))


def test_a_run_that_left_nothing_may_be_replaced(tmp_path):
  # It did not fit into memory, say, and the error said what to lower.
  workdir.prepare(tmp_path, recipe())
  workdir.write_split(tmp_path, {"hash": "a" * 64})
  (tmp_path / workdir.CHECKPOINTS).mkdir()
  workdir.prepare(tmp_path, recipe(train__batch_size=32))
  workdir.write_split(tmp_path, {"hash": "b" * 64})
  stored = json.loads((tmp_path / recipe_lib.RECIPE).read_text())
  assert stored["train"]["batch_size"] == 32


@pytest.mark.parametrize("text", ["{", "", "[1]", "\xff"])
def test_a_recipe_that_is_no_json_is_refused(tmp_path, text):
  (tmp_path / recipe_lib.RECIPE).write_text(text, encoding="latin-1")
  with pytest.raises(errors_lib.WorkdirError, match=r"config\.json is not"):
    workdir.prepare(tmp_path, recipe())


def test_a_directory_that_cannot_be_written_is_refused(tmp_path):
  (tmp_path / "file").write_text("in the way")
  for path in (tmp_path / "file", tmp_path / "file" / "below"):
    with pytest.raises(errors_lib.WorkdirError, match="cannot be written"):
      workdir.prepare(path, recipe())


def test_another_split_is_refused(tmp_path):
  path = used(tmp_path)
  split = {"hash": "a" * 64, "labelled_ids": [1, 5]}
  workdir.write_split(path, split)
  workdir.write_split(path, split)
  assert json.loads((path / "split.json").read_text()) == split
  with pytest.raises(errors_lib.WorkdirError) as caught:
    workdir.write_split(path, {"hash": "b" * 64})
  assert "hash aaaaaaaaaaaa, now bbbbbbbbbbbb" in str(caught.value)
  assert json.loads((path / "split.json").read_text()) == split


def test_a_refused_command_leaves_the_recipe_as_it_was(tmp_path):
  workdir.prepare(tmp_path, recipe())
  workdir.write_split(tmp_path, {"hash": "a" * 64})
  (tmp_path / workdir.CHECKPOINTS / "4").mkdir(parents=True)
  before = (tmp_path / recipe_lib.RECIPE).read_text()
  with pytest.raises(errors_lib.WorkdirError, match="labelled images"):
    workdir.prepare(tmp_path, recipe(train__epochs=140), {"hash": "b" * 64})
  assert (tmp_path / recipe_lib.RECIPE).read_text() == before


def test_one_process_at_a_time_uses_a_directory(tmp_path):
  holder = (
    "import pathlib, sys\n"
    "from paws_jax.runs import workdir\n"
    "with workdir.lock(pathlib.Path(sys.argv[1])):\n"
    "  print('locked', flush=True)\n"
    "  sys.stdin.read()\n"
  )
  path = workdir.prepare(tmp_path, recipe())
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
      workdir.prepare(tmp_path, recipe(seed=1))
    assert (path / recipe_lib.RECIPE).read_text() == before
    # However it ends, its lock is gone.
    other.kill()
    other.wait()
    workdir.prepare(tmp_path, recipe(seed=1))
    assert (path / recipe_lib.RECIPE).read_text() != before


def test_a_file_system_without_locks_is_used_without(tmp_path, monkeypatch):
  def no_locks(*_):
    raise OSError(errno.ENOLCK, "No locks available")

  monkeypatch.setattr(workdir.fcntl, "flock", no_locks)
  with workdir.lock(tmp_path), workdir.lock(tmp_path):
    pass


def test_a_directory_that_others_do_not_see_is_refused(tmp_path):
  path = workdir.prepare(tmp_path / "a", recipe())
  start = provenance.write_environment(path)
  provenance.check_shared(path, start)
  # The same recipe, in a directory of the same name on another machine.
  other = workdir.prepare(tmp_path / "b", recipe())
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
    workdir.prepare("gs://bucket/run", recipe())


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
  path = workdir.prepare("gs://bucket/run", recipe(), {"hash": "abc"})
  assert os.fspath(path) == "gs://bucket/run"
  workdir.write_split(path, {"hash": "abc"})
  provenance.write_environment(path)
  writer = metrics.Writer(path, first_step=0, tensorboard=False)
  writer.write(1, {"loss": 2})
  # An object cannot grow, and is not written anew for every line.
  assert metrics.read(path / metrics.METRICS) == []
  # Before a checkpoint it is.
  writer.flush()
  assert len(metrics.read(path / metrics.METRICS)) == 1
  monkeypatch.setattr(metrics, "_OBJECT_SECONDS", 0)
  writer.write(2, {"loss": 1})
  assert len(metrics.read(path / metrics.METRICS)) == 2
  writer.close()
  results.append_result(path, {"task": "pretrain"})
  # What is there is found again, and compared.
  workdir.prepare("gs://bucket/run", recipe(), {"hash": "abc"})
  with pytest.raises(errors_lib.WorkdirError, match="seed: 0 there, 1 now"):
    workdir.prepare("gs://bucket/run", recipe(seed=1), {"hash": "abc"})
  writer = metrics.Writer(path, first_step=1, tensorboard=False)
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


def test_the_recipe_of_a_run_is_read_as_it_was(tmp_path):
  config = config_lib.base()
  config.views.large.scale = (0.3, 0.9)
  config.train.epochs = 70
  workdir.prepare(tmp_path, config)
  stored = recipe_lib.load(tmp_path)
  assert config_lib.resolve(stored) == config_lib.resolve(config)
  assert isinstance(stored.views.large.scale, tuple)


def test_a_recipe_with_unknown_fields_is_refused(tmp_path):
  config = config_lib.base()
  recipe = config.to_dict() | {"magic": {"wand": 1}}
  (tmp_path / recipe_lib.RECIPE).write_text(json.dumps(recipe))
  with pytest.raises(errors_lib.WorkdirError, match=r"magic.*--config"):
    recipe_lib.load(tmp_path)


def test_a_run_is_opened_for_looking_only_with_its_recipe(tmp_path):
  config = config_lib.base()
  split = {"hash": "a" * 64}
  with pytest.raises(errors_lib.WorkdirError, match="pre-train first"):
    workdir.open_run(tmp_path, config, split)
  workdir.prepare(tmp_path, config)
  before = sorted(tmp_path.iterdir())
  assert workdir.open_run(tmp_path, config, split) == tmp_path
  assert sorted(tmp_path.iterdir()) == before
  config.seed = 3
  with pytest.raises(errors_lib.WorkdirError, match="seed: 0 there, 3 now"):
    workdir.open_run(tmp_path, config, split)


def test_a_run_from_before_a_field_was_there_goes_on(tmp_path):
  used(tmp_path)
  stored = json.loads((tmp_path / recipe_lib.RECIPE).read_text())
  del stored["method"]["support_loss_weight"]
  (tmp_path / recipe_lib.RECIPE).write_text(json.dumps(stored))
  workdir.prepare(tmp_path, recipe())
  (tmp_path / recipe_lib.RECIPE).write_text(json.dumps(stored))
  with pytest.raises(errors_lib.WorkdirError, match=r"weight: 0\.0 there"):
    workdir.prepare(tmp_path, recipe(method__support_loss_weight=1.0))
