"""MLflow with a database in a file, where the package is installed."""

import pytest
from PIL import Image

from paws_jax import errors
from paws_jax.loggers import interface
from paws_jax.loggers import mlflow_run
from tests.loggers import loggers_test

# Its own use of its database.
pytestmark = pytest.mark.filterwarnings("ignore")


def write_twice(tmp_path):
  """Writes a run that stops and is resumed."""
  pytest.importorskip("mlflow")
  log = loggers_test.open_log(tmp_path, "mlflow")
  loggers_test.write(log, range(1, 5))
  log.note(4, {"finding": "collapse", "sentence": "all the same."})
  log.close(failed=False, done=False)
  log = loggers_test.open_log(tmp_path, "mlflow", first_step=2)
  loggers_test.write(log, range(3, 7))
  Image.new("RGB", (20, 10)).save(tmp_path / "training.png")
  log.result(6, {"top1": 0.25})
  log.close(failed=False, done=True)


def check(uri):
  import mlflow

  client = mlflow.MlflowClient(tracking_uri=uri)
  (experiment,) = client.search_experiments(filter_string="name = 'paws_jax'")
  (run,) = client.search_runs([experiment.experiment_id])
  points = client.get_metric_history(run.info.run_id, "loss")
  assert [(p.step, p.value) for p in points] == [
    (step, step / 3) for step in range(1, 7)
  ]
  assert run.data.metrics["result/top1"] == 0.25
  assert run.data.params["train.batch_size"] == "256"
  assert run.data.tags["collapse"] == "step 4: all the same."
  assert run.info.status == "FINISHED"
  (figure,) = client.list_artifacts(run.info.run_id)
  assert figure.path == "training.png"


@pytest.mark.slow
def test_a_resumed_run_continues_the_same_run(tmp_path, monkeypatch):
  monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
  write_twice(tmp_path)
  check(f"sqlite:///{tmp_path}/mlflow.db")


@pytest.mark.slow
def test_the_tracking_uri_of_the_environment_is_used(tmp_path, monkeypatch):
  monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
  uri = (tmp_path / "store").as_uri()
  monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
  (tmp_path / "run").mkdir()
  write_twice(tmp_path / "run")
  check(uri)
  assert not (tmp_path / "run" / "mlflow.db").exists()


def test_a_bucket_cannot_hold_a_database():
  bucket = loggers_test.loggers.epath.Path("gs://bucket/run")
  start = interface.Start(bucket, 0, -1, "", {})
  with pytest.raises(errors.InputError, match="set MLFLOW_TRACKING_URI"):
    mlflow_run._own_store(start)


@pytest.mark.parametrize("name", ["which?", "100%20"])
def test_a_path_that_its_address_cannot_have_is_refused(tmp_path, name):
  start = interface.Start(tmp_path / name, 0, -1, "", {})
  with pytest.raises(errors.InputError, match="another --workdir") as caught:
    mlflow_run._own_store(start)
  assert repr("?" if "?" in name else "%20") in str(caught.value)


def test_other_paths_are_those_of_the_database(tmp_path):
  directory = (tmp_path / "50% a#b, ü").resolve()
  start = interface.Start(directory, 0, -1, "", {})
  uri, files = mlflow_run._own_store(start)
  assert uri == f"sqlite:///{directory}/mlflow.db"
  assert files == (directory / "mlflow").as_uri()
