"""A run with loggers, one of which fails in the middle."""

import re

import pytest

from paws_jax.runs import metrics
from paws_jax.runs import results
from paws_jax.tasks import pretrain
from tests import small_runs
from tests import tiny_recipe
from tests.loggers import loggers_test

services = loggers_test.services
pytestmark = [pytest.mark.unoptimized, pytest.mark.devices(1)]


@pytest.fixture
def config(tmp_path_factory):
  made = tiny_recipe.get_config()
  made.log.writers = ("jsonl", "wandb", "mlflow")
  made.update_from_flattened_dict(small_runs.SMALL)
  data = small_runs.write_digits(tmp_path_factory.mktemp("data") / "digits")
  made.update_from_flattened_dict(small_runs.in_memory(data))
  made.update_from_flattened_dict(
    {"train.epochs": 1, "log.every_steps": 1, "method.health_metrics": False}
  )
  return made


@pytest.mark.slow
def test_training_does_not_end_with_a_logger(
  services, config, monkeypatch, tmp_path, capsys
):
  monkeypatch.setattr(pretrain.requirements, "check_loggers", lambda log: None)
  write = services["mlflow"].write_scalars

  def fail(step, scalars):
    if step >= 3:
      raise ConnectionError("the network is gone")
    write(step, scalars)

  services["mlflow"].write_scalars = fail
  assert pretrain.run(pretrain.prepare(config, str(tmp_path))) == 0
  out = capsys.readouterr().out
  found = re.findall("warning: .*network is gone", out)
  assert found == [
    "warning: mlflow of log.writers failed after step 2 (the network is gone"
  ]
  rows = metrics.read(tmp_path / metrics.METRICS)
  (result,) = results.read_results(tmp_path)
  *sent, (last, final) = services["wandb"].rows
  assert [step for step, _ in sent] == [row["step"] for row in rows]
  assert [row.get("loss") for _, row in sent] == [r.get("loss") for r in rows]
  assert services["mlflow"].rows == services["wandb"].rows[:2]
  assert (last, final["result/top1"]) == (5, result["top1"])
  ((step, name, png),) = services["wandb"].images
  assert (step, name) == (5, "training")
  assert png == (tmp_path / "training.png").read_bytes()
  assert services["wandb"].outcomes == ["finished"]
  # A finished run that is started again sends what is missing.
  services["mlflow"].write_scalars = write
  for _ in range(2):
    assert pretrain.run(pretrain.prepare(config, str(tmp_path))) == 0
    assert services["mlflow"].rows == services["wandb"].rows
    assert services["mlflow"].images == services["wandb"].images
    assert len(services["wandb"].starts) == 1
    assert len(services["mlflow"].starts) == 2
  assert metrics.read(tmp_path / metrics.METRICS) == rows


@pytest.mark.slow
def test_a_logger_that_cannot_start_ends_the_run_before_it_compiles(
  services, config, monkeypatch, tmp_path, capsys
):
  monkeypatch.setattr(pretrain.requirements, "check_loggers", lambda log: None)
  services["wandb"].down = "start"
  with pytest.raises(loggers_test.errors.InputError, match="cannot start"):
    pretrain.run(pretrain.prepare(config, str(tmp_path)))
  assert "compiling" not in capsys.readouterr().out
