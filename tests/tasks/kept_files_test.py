"""What a user has made of a file that a task writes again is kept."""

import ast
import dataclasses
import json
import pathlib
import types

import numpy as np
import pytest

from paws_jax.evaluation import tables_and_plots
from paws_jax.plots import training_figure
from paws_jax.runs import files
from paws_jax.tasks import plan
from paws_jax.tasks import predict
from paws_jax.tasks import report
from paws_jax.training import bad_images
from paws_jax.training import save_classifier
from tests import random_classifier

PACKAGE = pathlib.Path(__file__).parents[2] / "paws_jax"
# Write into new files and directories, or what no user sees.
_OWN = {
  *("classifier/files.py", "export/stablehlo.py", "export/torch.py"),
  *("tasks/export.py", "weights/write_torch.py", "predict/parquet.py"),
  *("predict/embeddings.py", "predict/rows_file.py", "runs/files.py"),
  *("runs/metrics.py", "runs/output.py", "runs/workdir.py"),
  *("data/sources/record_index.py", "export/onnx.py"),
  # Features of a frozen trunk, in a directory of their own.
  "training/feature_file.py",
  # Appends to the records of a run.
  "runs/growing_file.py",
  # Sets aside a file of the same name, which a test of its own shows.
  "estimator/training.py",
  # Their `write_text` sends a text to a logger.
  *("loggers/loggers.py", "loggers/tensorboard_files.py"),
}


def test_all_other_files_are_written_by_one_function():
  found = set()
  for path in PACKAGE.rglob("*.py"):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
      if not isinstance(node, ast.Call):
        continue
      name = getattr(node.func, "attr", getattr(node.func, "id", ""))
      modes = [a.value for a in node.args if isinstance(a, ast.Constant)]
      opens = name in ("open", "fdopen") and {"w", "wb", "a", "ab"} & {*modes}
      if opens or name in ("write_text", "write_bytes", "truncate"):
        found.add(path.relative_to(PACKAGE).as_posix())
  assert found <= _OWN


def write_report(workdir, monkeypatch):
  evidence = types.SimpleNamespace(unlabelled=())
  monkeypatch.setattr(report.evidence_lib, "gather", lambda trained: evidence)
  monkeypatch.setattr(report, "page", lambda *unused: None)
  monkeypatch.setattr(report.page_lib, "render", lambda page: "<html>")
  monkeypatch.setattr(report, "suggestions_csv", lambda evidence: b"path\na\n")
  report.run(report.ReportInputs(None, workdir / report.PAGE))


def write_tables(workdir, monkeypatch):
  for name in ("draw_confusion", "draw_reliability"):
    monkeypatch.setattr(tables_and_plots, name, lambda *args, **options: None)
  outcome = types.SimpleNamespace(
    confusion=np.eye(2, dtype=int), title="soft NN", part="test"
  )
  # Not UTF-8: as it stands in the file system.
  names = ("caf\udce9", "tea")
  tables_and_plots.write(workdir, [outcome], class_names=names, source="")


def write_plan(workdir, monkeypatch):
  plan._write({"memory": 1}, str(workdir))


def write_views(workdir, monkeypatch):
  image = np.zeros((8, 8, 3), np.uint8)
  strip = training_figure.Strip("an image", image, [[image]])
  training_figure.views_sheet(workdir / training_figure.VIEWS, [strip])


def write_bad_images(workdir, monkeypatch):
  dataset = types.SimpleNamespace(
    labelled=types.SimpleNamespace(
      images=types.SimpleNamespace(unreadable={"a.jpg": "empty"})
    )
  )
  experiment = types.SimpleNamespace(
    dataset=dataset, pipeline=types.SimpleNamespace(replaced={})
  )
  bad_images.BadImages(experiment, workdir).report()


@pytest.mark.parametrize("content", [b"mine\n", b'["mine"]', b"\xff\xfem\0"])
@pytest.mark.parametrize(
  ("write", "name"),
  [
    (write_report, "label_next.csv"),
    (write_report, "report.html"),
    (write_tables, "evaluation/per_class.csv"),
    (write_tables, "evaluation/confusion.csv"),
    (write_plan, "plan.json"),
    (write_views, "views.png"),
    (write_bad_images, "bad_images.json"),
  ],
)
def test_a_file_that_was_changed_is_kept(
  tmp_path, monkeypatch, capsys, write, name, content
):
  path = tmp_path / name
  write(tmp_path, monkeypatch)
  before = path.read_bytes()
  write(tmp_path, monkeypatch)
  assert "is kept" not in capsys.readouterr().out
  path.write_bytes(content)
  write(tmp_path, monkeypatch)
  assert path.read_bytes() == before
  old = files.free_name(path).with_name(f"{path.stem}.old{path.suffix}")
  assert old.read_bytes() == content
  assert f"before is kept as {old.name}" in capsys.readouterr().out


def test_tables_are_utf8(tmp_path, monkeypatch):
  write_tables(tmp_path, monkeypatch)
  table = tmp_path / "evaluation" / "confusion.csv"
  assert "true class,caf\\xe9,tea" in table.read_text(encoding="utf-8")


def extend(made, path):
  # As with --add_class.
  predict.run(predict.PredictInputs(lambda: made, None, {}, path))


@pytest.mark.parametrize("save", [save_classifier.save, extend])
def test_an_edited_classifier_is_kept(tmp_path, capsys, save):
  made, path = random_classifier.make(), tmp_path / "classifier"
  for step in (1, 2):
    save(dataclasses.replace(made, origin={"step": step}), path)
  assert [p.name for p in tmp_path.glob("[!.]*")] == ["classifier"]
  settings = path / "classifier.json"
  settings.write_text(settings.read_text().replace('"ant"', '"Ameise"'))
  save(made, path)
  kept = tmp_path / "classifier.old"
  stored = json.loads((kept / "classifier.json").read_text())
  assert stored["class_names"][0] == "Ameise"
  assert "is kept in" in capsys.readouterr().out
  assert "Ameise" not in settings.read_text()
