"""Rows reach each logger once, in order, whatever fails or is resumed."""

import json

import pytest
from PIL import Image

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.config import upgrade
from paws_jax.loggers import loggers
from paws_jax.loggers import record
from paws_jax.runs import metrics
from paws_jax.training import run_log
from tests import odd_files
from tests import tiny_recipe


class Service:
  """A logger that keeps what it gets, and fails when asked to."""

  replaces = False

  def __init__(self):
    self.starts, self.rows, self.images, self.outcomes = [], [], [], []
    self.down = ""

  def __call__(self, start):
    self._check("start")
    self.starts.append(start)
    self.run_id = start.run_id or "run 1"
    return self

  def _check(self, method):
    if self.down in (method, "all"):
      raise ConnectionError(f"no route to {method}\nTraceback of pages")

  def write_scalars(self, step, scalars):
    self._check("scalars")
    self.rows.append((step, scalars))

  def write_text(self, step, name, text):
    self._check("text")
    self.rows.append((step, {name: text}))

  def write_image(self, step, name, png):
    self._check("image")
    self.images.append((step, name, png))

  def flush(self):
    self._check("flush")

  def close(self, outcome):
    self._check("close")
    self.outcomes.append(outcome)

  @property
  def steps(self):
    return [step for step, _ in self.rows]


@pytest.fixture
def services(monkeypatch):
  """Stands in for the services of wandb and mlflow."""
  made = {name: Service() for name in ("wandb", "mlflow")}
  for name, service in made.items():
    monkeypatch.setitem(loggers._WRITERS, name, service)
  return made


def open_log(workdir, *names, first_step=0):
  config = tiny_recipe.get_config()
  config.log.writers = ("jsonl", *names)
  recipe = config_lib.resolve(config)
  return run_log.RunLog(recipe, workdir, first_step)


def write(log, steps):
  for step in steps:
    log.write(step, {"loss": step / 3})


def rows(workdir):
  return [row["step"] for row in metrics.read(workdir / metrics.METRICS)]


def test_each_logger_gets_what_metrics_jsonl_gets(services, tmp_path):
  log = open_log(tmp_path, "wandb", "mlflow")
  write(log, (1, 2))
  finding = {"finding": "dead learning rate", "sentence": "it is 0.", "step": 2}
  log.note(2, {k: v for k, v in finding.items() if k != "step"})
  Image.new("RGB", (4, 4)).save(tmp_path / "training.png")
  log.result(2, {"top1": 0.5, "task": "pretrain", "top5": None})
  log.close(failed=False, done=True)
  for service in services.values():
    assert service.rows == [
      (1, {"loss": 1 / 3}),
      (2, {"loss": 2 / 3}),
      (2, {"dead_learning_rate": "it is 0."}),
      (2, {"result/top1": 0.5}),
    ]
    ((step, name, png),) = service.images
    assert (step, name) == (2, "training")
    assert png == (tmp_path / "training.png").read_bytes()
    assert service.outcomes == ["finished"]
    (start,) = service.starts
    assert start.recipe["train.batch_size"] == 256
  assert rows(tmp_path) == [1, 2, 2]


@pytest.mark.parametrize("how", ["stopped", "killed", "failed"])
@pytest.mark.parametrize("again", [False, True])
def test_a_resumed_run_continues_without_a_step_twice(
  services, tmp_path, how, again
):
  log = open_log(tmp_path, "wandb")
  write(log, range(1, 6))
  if how != "killed":
    log.close(failed=how == "failed", done=False)
    assert services["wandb"].outcomes == [how]
  if again:
    # One that is killed before it has taken a step changes nothing.
    open_log(tmp_path, "wandb", first_step=3)
    assert rows(tmp_path) == [1, 2, 3]
  log = open_log(tmp_path, "wandb", first_step=3)
  write(log, range(4, 9))
  log.close(failed=False, done=True)
  assert services["wandb"].steps == [*range(1, 9)]
  assert rows(tmp_path) == [*range(1, 9)]
  ids = [start.run_id for start in services["wandb"].starts]
  assert ids == ["", *["run 1"] * (1 + again)]


def test_a_run_that_starts_again_from_step_0_is_a_new_one(services, tmp_path):
  write(open_log(tmp_path, "wandb", "mlflow"), (1, 2))
  log = open_log(tmp_path, "wandb")
  write(log, (1, 2, 3))
  log.close(failed=False, done=False)
  # Nor is the former run of one that comes back later continued.
  write(open_log(tmp_path, "wandb", "mlflow", first_step=3), (4,))
  assert services["wandb"].steps == [1, 2, 1, 2, 3, 4]
  assert services["mlflow"].steps == [1, 2, 1, 2, 3, 4]
  ids = {k: [start.run_id for start in v.starts] for k, v in services.items()}
  assert ids == {"wandb": ["", "", "run 1"], "mlflow": ["", ""]}


def test_a_logger_that_is_added_later_gets_the_earlier_rows(services, tmp_path):
  log = open_log(tmp_path, "wandb")
  write(log, range(1, 4))
  log.close(failed=False, done=False)
  log = open_log(tmp_path, "mlflow", first_step=2)
  write(log, range(3, 6))
  log.close(failed=False, done=False)
  log = open_log(tmp_path, "wandb", "mlflow", first_step=5)
  write(log, (6,))
  for service in services.values():
    assert service.steps == [*range(1, 7)]


@pytest.mark.parametrize("method", ["scalars", "text", "all"])
def test_one_that_fails_is_left_out_with_one_warning(
  services, tmp_path, capsys, method
):
  log = open_log(tmp_path, "wandb", "mlflow")
  write(log, (1, 2))
  services["wandb"].down = method
  log.note(2, {"finding": "collapse", "sentence": "all the same."})
  write(log, range(3, 6))
  services["wandb"].down = ""
  write(log, (6,))
  log.close(failed=False, done=False)
  out = capsys.readouterr().out
  assert out.count("warning: ") == 1
  assert "wandb of log.writers failed after step 2 (no route to" in out
  assert "Traceback" not in out
  assert services["mlflow"].steps == [1, 2, 2, 3, 4, 5, 6]
  # It is closed, if it can be.
  assert services["wandb"].outcomes == ["stopped"] * (method != "all")
  # What it has missed is sent when the run is started again: all of the step
  # at which it failed, here a row and a finding.
  before = len(services["wandb"].rows)
  assert before == {"scalars": 3, "text": 2, "all": 2}[method]
  write(open_log(tmp_path, "wandb", "mlflow", first_step=6), (7,))
  again = [] if method == "scalars" else [2, 2]
  assert services["wandb"].steps[before:] == [*again, *range(3, 8)]
  assert (2, {"collapse": "all the same."}) in services["wandb"].rows
  assert services["mlflow"].steps == [1, 2, 2, *range(3, 8)]


def test_one_that_cannot_flush_is_left_out(services, tmp_path, capsys):
  log = open_log(tmp_path, "wandb", "mlflow")
  write(log, (1,))
  services["wandb"].down = "flush"
  log.flush()
  write(log, (2,))
  assert services["wandb"].steps == [1]
  assert services["mlflow"].steps == [1, 2]
  assert "wandb of log.writers failed after step 1" in capsys.readouterr().out


FINISHED = {"top1": 0.5, "task": "pretrain"}


def finish(workdir, *names):
  """Writes a run of two steps to its end."""
  Image.new("RGB", (4, 4)).save(workdir / "training.png")
  log = open_log(workdir, *names)
  write(log, (1, 2))
  log.result(2, FINISHED)
  log.close(failed=False, done=True)


def send_finished(workdir, *names):
  config = tiny_recipe.get_config()
  config.log.writers = ("jsonl", *names)
  recipe = config_lib.resolve(config)
  run_log.send_finished(recipe, workdir, step=2, row=FINISHED)


def test_a_finished_run_is_sent_to_a_logger_that_is_added(services, tmp_path):
  finish(tmp_path, "wandb")
  for _ in range(2):
    send_finished(tmp_path, "wandb", "mlflow")
    assert services["mlflow"].rows == services["wandb"].rows
    assert services["mlflow"].rows[-1] == (2, {"result/top1": 0.5})
    assert services["mlflow"].images == services["wandb"].images
    for service in services.values():
      assert len(service.starts) == 1
      assert service.outcomes == ["finished"]
  assert rows(tmp_path) == [1, 2]


@pytest.mark.parametrize("method", ["image", "close"])
def test_a_finished_run_is_sent_to_one_that_failed_at_its_end(
  services, tmp_path, capsys, method
):
  services["wandb"].down = method
  finish(tmp_path, "wandb", "mlflow")
  # It fails again, and the run can be used all the same.
  send_finished(tmp_path, "wandb", "mlflow")
  services["wandb"].down = "start"
  send_finished(tmp_path, "wandb", "mlflow")
  services["wandb"].down = ""
  send_finished(tmp_path, "wandb", "mlflow")
  assert capsys.readouterr().out.count("warning: wandb of log.writers") == 3
  assert services["wandb"].steps == [1, 2, 2, 2, 2]
  assert services["wandb"].rows[-1] == (2, {"result/top1": 0.5})
  assert len(services["wandb"].images) == (3 if method == "close" else 1)
  assert services["wandb"].outcomes[-1] == "finished"
  assert len(services["mlflow"].starts) == 1


def test_a_killed_process_of_a_finished_run_is_made_up_for(services, tmp_path):
  write(open_log(tmp_path, "wandb"), (1, 2))
  Image.new("RGB", (4, 4)).save(tmp_path / "training.png")
  send_finished(tmp_path, "wandb")
  assert services["wandb"].rows[-1] == (2, {"result/top1": 0.5})
  assert services["wandb"].steps == [1, 2, 2]


def test_a_finished_run_without_an_entry_of_its_end_was_sent(
  services, tmp_path
):
  finish(tmp_path, "wandb")
  path = tmp_path / record.RECORD
  entries = json.loads(path.read_text())
  # As version 0.2.0 wrote it.
  del entries["wandb"]["is_complete"]
  path.write_text(json.dumps(entries))
  send_finished(tmp_path, "wandb")
  assert len(services["wandb"].starts) == 1


def test_one_that_cannot_close_or_show_an_image_ends_nothing(
  services, tmp_path, capsys
):
  log = open_log(tmp_path, "wandb", "mlflow")
  write(log, (1,))
  services["wandb"].down, services["mlflow"].down = "image", "close"
  # Nor does a figure that is not there.
  log.result(1, {"top1": 0.5})
  log.close(failed=False, done=True)
  assert capsys.readouterr().out.count("warning: ") == 2


def test_one_that_cannot_start_is_an_error_before_training(services, tmp_path):
  services["mlflow"].down = "start"
  with pytest.raises(errors.InputError) as caught:
    open_log(tmp_path, "wandb", "mlflow")
  assert str(caught.value) == (
    "mlflow of log.writers cannot start (no route to start). See whether "
    "MLFLOW_TRACKING_URI is right, or take it out of log.writers."
  )
  assert services["wandb"].outcomes == ["failed"]


def test_one_that_cannot_resume_does_not_keep_the_run(
  services, tmp_path, capsys
):
  write(open_log(tmp_path, "wandb"), (1, 2, 3))
  services["wandb"].down = "start"
  log = open_log(tmp_path, "wandb", first_step=2)
  write(log, (3, 4))
  log.close(failed=False, done=False)
  assert "the run continues without it" in capsys.readouterr().out
  services["wandb"].down = ""
  write(open_log(tmp_path, "wandb", first_step=4), (5,))
  assert services["wandb"].steps == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
  "content", [b"", b"{", b"[]", b'{"wandb": 3}', b'{"wandb": {"sent": 1}}']
)
def test_a_record_that_somebody_changed_starts_a_new_run(
  services, tmp_path, content
):
  (tmp_path / record.RECORD).write_bytes(content)
  write(open_log(tmp_path, "wandb", first_step=1), (2,))
  assert services["wandb"].steps == [2]
  stored = json.loads((tmp_path / record.RECORD).read_text())
  assert stored["wandb"]["run_id"] == "run 1"


def test_a_record_that_is_no_file_is_named(services, tmp_path):
  odd_files.make(tmp_path / record.RECORD, "directory")
  with pytest.raises(errors.WorkdirError, match=r"loggers\.json cannot be"):
    open_log(tmp_path, "wandb")


@pytest.mark.parametrize(
  ("writers", "problem"),
  [
    (
      ("jsonl", "wandbb"),
      r"log.writers is \('jsonl', 'wandbb'\): 'wandbb' is no writer; choose "
      "from jsonl, tensorboard, wandb, mlflow",
    ),
    (("wandb",), r"log.writers is \('wandb',\): add 'jsonl'"),
    ((), r"log.writers is \(\): add 'jsonl'"),
    (("jsonl", 3), "each must be a string"),
    (
      ("jsonl,jsonl",),
      r"log.writers is \('jsonl', 'jsonl'\): 'jsonl' is in it 2 times; name "
      "each writer once",
    ),
    (("jsonl", "mlflow", "wandb", "mlflow"), "'mlflow' is in it 2 times"),
  ],
)
def test_writers_that_there_are_not(writers, problem):
  config = tiny_recipe.get_config()
  config.log.writers = writers
  with pytest.raises(errors.InputError, match=problem):
    config_lib.resolve(config)


def test_names_may_be_separated_by_commas():
  config = tiny_recipe.get_config()
  # As flags make it of --config.log.writers=jsonl,mlflow.
  config.log.writers = ("jsonl, mlflow",)
  assert config_lib.resolve(config).log.writers == ("jsonl", "mlflow")


@pytest.mark.parametrize("named", [(), ("tensorboard",)])
def test_former_spelling(named):
  config = tiny_recipe.get_config()
  config.log.writers = ("jsonl", "wandb", *named)
  config.log.tensorboard = True
  assert config_lib.resolve(config).log.loggers == ("wandb", "tensorboard")


def test_a_stored_recipe_may_repeat_writers():
  config = tiny_recipe.get_config()
  stored = upgrade.write(config_lib.resolve(config))
  stored["log"]["writers"] = ["jsonl", "wandb", "jsonl", "wandb"]
  assert upgrade.read(stored).log.loggers == ("wandb",)
