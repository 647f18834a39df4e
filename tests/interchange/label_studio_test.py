"""Label Studio: tasks for it, and its answers.

recorded/label_studio_export.json was written for these tests after the
documentation of Label Studio (pages "Label Studio Task Format", "Export
annotations" and "Import pre-annotated data"): no other project's file is in it.
"""

import csv
import json
import os
import pathlib
import sys
import unicodedata
import urllib.parse
import xml.etree.ElementTree

import numpy as np
import pytest

from paws_jax import errors
from paws_jax.data import load_dataset
from paws_jax.interchange import fiftyone
from paws_jax.interchange import label_studio
from paws_jax.interchange import places
from paws_jax.tasks import predict
from paws_jax.tasks import pretrain
from tests import own_data_runs
from tests import random_classifier

RECORDED = (
  pathlib.Path(__file__).parent / "recorded" / "label_studio_export.json"
)
NAMES = ["new/one & two.png", "new/3.png", "new/4#.png", "new/5.png"]
HEADER = "path,suggested_class,probability,entropy,novelty,reason"


@pytest.fixture
def root(tmp_path):
  """The images of the recorded export."""
  for name in NAMES:
    path = tmp_path / "photos" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
  return tmp_path / "photos"


def table(root, names=NAMES, predicted="cat"):
  path = root.parent / "label_next.csv"
  lines = [f'"{name}",{predicted},0.75,0.5,0.25,undecided' for name in names]
  path.write_text("\n".join([HEADER, *lines]) + "\n")
  return path


def write_tasks(root, **options):
  output = root.parent / "tasks.json"
  label_studio.write_tasks(
    options.pop("table", root.parent / "label_next.csv"),
    output,
    **{"document_root": root, "images_dir": root} | options,
  )
  return json.loads(output.read_text())


def test_a_task_shows_the_prediction(root):
  table(root)
  tasks = write_tasks(root)
  assert [task["data"]["path"] for task in tasks] == NAMES
  assert [task["data"]["image"] for task in tasks] == [
    "/data/local-files/?d=new/one%20%26%20two.png",
    "/data/local-files/?d=new/3.png",
    "/data/local-files/?d=new/4%23.png",
    "/data/local-files/?d=new/5.png",
  ]
  assert tasks[0]["data"]["reason"] == "undecided"
  (prediction,) = tasks[0]["predictions"]
  assert prediction["score"] == 0.75
  assert prediction["model_version"].startswith("paws_jax ")
  assert prediction["result"] == [
    {
      "from_name": "class",
      "to_name": "image",
      "type": "choices",
      "value": {"choices": ["cat"]},
    }
  ]


def test_the_interface_has_the_names_of_the_tasks(root):
  table(root, NAMES[:1])
  (task,) = write_tasks(root)
  names = ["cat", 'a "quoted" <dog> & co']
  view = xml.etree.ElementTree.fromstring(label_studio.label_config(names))
  image, choices = view
  result = task["predictions"][0]["result"][0]
  assert choices.get("name") == result["from_name"]
  assert choices.get("toName") == image.get("name") == result["to_name"]
  assert image.get("value").removeprefix("$") in task["data"]
  assert [choice.get("value") for choice in choices] == names


def test_paths_are_relative_to_the_document_root(root):
  table(root, ["3.png", "../new/5.png"])
  tasks = write_tasks(root, images_dir=root / "new", url_prefix="s3://b/")
  assert [t["data"]["image"] for t in tasks] == [
    "s3://b/new/3.png",
    "s3://b/new/5.png",
  ]
  with pytest.raises(errors.InputError, match=r"3\.png is not below .*/other"):
    write_tasks(root, images_dir=root / "new", document_root=root / "other")


def test_tasks_that_were_changed_are_kept(root):
  table(root)
  write_tasks(root)
  (root.parent / "tasks.json").write_text("mine")
  write_tasks(root)
  assert (root.parent / "tasks.old.json").read_text() == "mine"


@pytest.mark.parametrize(
  ("content", "problem"),
  [
    (None, "there is no such table"),
    ("path,label\n1.png,cat\n", "row 2 has no path, class or probability"),
    (
      f"{HEADER}\nnew/3.png,cat,high,1,1,x\n",
      "row 2 has no path, class or pro",
    ),
    (f"{HEADER}\nnew/3.png,cat\n", "row 2 has more or fewer fields"),
    (f"{HEADER}\nnew/3.png,cat,1,1,1,1,1\n", "row 2 has more or fewer fields"),
    (f"{HEADER}\n", "has no row"),
    (
      f"{HEADER}\nnew/0.png,cat,1,1,1,x\n",
      r"1 of 1 images are not in .*with ima",
    ),
    (b"\xff\xfep", "UTF-16"),
    (b"path,\xff\n", "is no CSV file in UTF-8"),
  ],
)
def test_tables_that_are_none(root, content, problem):
  path = root.parent / "label_next.csv"
  if content is not None:
    path.write_bytes(
      content if isinstance(content, bytes) else content.encode()
    )
  with pytest.raises(
    (errors.InputError, errors.MissingFileError), match=problem
  ):
    write_tasks(root)


def test_the_recorded_export_is_read(root):
  answers = label_studio.read_export(
    RECORDED, document_root=root, class_names=("cat", "dog")
  )
  assert answers.labels == dict(zip(NAMES, ("cat", "", "dog", ""), strict=True))
  assert answers.skipped == ("new/3.png",)
  assert answers.num_labelled == 2


def change(root, function):
  """The recorded export, with one change."""
  tasks = json.loads(RECORDED.read_text())
  changed = function(tasks)
  path = root.parent / "export.json"
  path.write_text(json.dumps(tasks if changed is None else changed))
  return path


def choose(*names, control="class"):
  return {
    "from_name": control,
    "to_name": "image",
    "type": "choices",
    "value": {"choices": list(names)},
  }


def set_result(*results):
  def function(tasks):
    tasks[0]["annotations"][0]["result"] = list(results)

  return function


def set_data(**data):
  def function(tasks):
    tasks[0]["data"] = data

  return function


def answer_both(tasks):
  tasks[2]["annotations"][0]["ground_truth"] = False


def same_image_twice(tasks):
  tasks[3]["data"]["path"] = NAMES[0]
  tasks[3]["annotations"] = [{"result": [choose("dog")]}]


BOX = {"type": "rectanglelabels", "from_name": "box", "value": {}}


@pytest.mark.parametrize(
  ("function", "problem"),
  [
    (lambda tasks: {"tasks": tasks}, "no list of tasks: export .* as JSON"),
    (lambda tasks: [], "is no list of tasks"),
    (
      lambda tasks: [{"image": "a.png", "class": "cat"}],
      "task 1 has no data or",
    ),
    (set_result(choose("bird")), r"1 answers .*not known: 'bird' \(new/one"),
    (
      set_result(choose("cat", "dog")),
      r"task 101: it has several classes \('c",
    ),
    (set_result(BOX), "is no choice, but rectanglelabels of 'box'"),
    (
      set_result(choose("cat"), choose("yes", control="sure")),
      "choices of 'class', 'sure': say which are classes with control=NAME",
    ),
    (set_result({**choose(), "value": None}), "a choice has no value"),
    (set_result(choose(3)), "several classes"),
    (
      lambda tasks: tasks[0]["annotations"][0].pop("result") and None,
      "no result",
    ),
    (set_data(image="/data/upload/4/1-x.png"), "uploaded in the browser lose"),
    (set_data(path="../secret.png"), "is not below"),
    (set_data(path="/etc/passwd"), "is not below"),
    (
      set_data(path="new/none.png"),
      r"1 of 4 images are not in .*document_root=",
    ),
    (answer_both, r"task 103: its answers differ \('cat', 'dog'\): mark one"),
    (same_image_twice, "is 'dog' here and 'cat' in another task"),
  ],
)
def test_answers_that_cannot_be_used(root, function, problem):
  export = change(root, function)
  with pytest.raises(
    (errors.InputError, errors.MissingFileError), match=problem
  ):
    label_studio.read_export(
      export, document_root=root, class_names=("cat", "dog")
    )


@pytest.mark.parametrize(
  ("content", "problem"),
  [
    (None, "there is no such export"),
    ("", "is not JSON .it is empty.: export the project as JSON"),
    ("image,choice\n", "is not JSON"),
  ],
)
def test_exports_that_are_none(root, content, problem):
  path = root.parent / "export.json"
  if content is not None:
    path.write_text(content)
  with pytest.raises(
    (errors.InputError, errors.MissingFileError), match=problem
  ):
    label_studio.read_export(path, document_root=root)


def test_one_of_several_controls_is_chosen(root):
  export = change(
    root, set_result(choose("cat"), choose("yes", control="sure"))
  )
  answers = label_studio.read_export(
    export, document_root=root, control="class"
  )
  assert answers.labels[NAMES[0]] == "cat"


def test_an_answer_without_a_choice_is_none(root):
  export = change(root, set_result())
  answers = label_studio.read_export(export, document_root=root)
  assert answers.labels[NAMES[0]] == ""
  assert answers.skipped == ("new/3.png",)


def test_what_was_chosen_before_skipping_is_no_answer(root):
  def choose_first(tasks):
    tasks[1]["annotations"][0]["result"] = [choose("cat")]

  answers = label_studio.read_export(
    change(root, choose_first), document_root=root
  )
  assert answers.labels["new/3.png"] == ""
  assert answers.skipped == ("new/3.png",)


def read_rows(path):
  with path.open(newline="") as file:
    return list(csv.reader(file))


def test_answers_fill_in_a_manifest(root):
  manifest = root.parent / "manifest.csv"
  manifest.write_text(
    "note,path,label,split\nx,old/1.png,cat,test\n,new/one & two.png,,\n"
    ',new/3.png,cat,\n,"./new/4#.png",dog,\n'
  )
  output = root.parent / "out.csv"
  label_studio.write_manifest(
    RECORDED, output, document_root=root, manifest=manifest
  )
  assert read_rows(output) == [
    ["note", "path", "label", "split"],
    ["x", "old/1.png", "cat", "test"],
    ["", "new/one & two.png", "cat", ""],
    ["", "new/3.png", "cat", ""],
    ["", "./new/4#.png", "dog", ""],
    ["", "new/5.png", "", ""],
  ]


def test_labels_that_differ_are_named(root):
  manifest = root.parent / "manifest.csv"
  before = "path,label\nnew/4#.png,cat\n"
  manifest.write_text(before)
  flags = {"document_root": root, "manifest": manifest}
  output = root.parent / "out.csv"
  with pytest.raises(
    errors.InputError, match=r"1 labels .*'cat' and 'dog'\. Give c"
  ):
    label_studio.write_manifest(RECORDED, output, **flags)
  assert not output.exists()
  label_studio.write_manifest(RECORDED, output, **flags, correct=True)
  assert read_rows(output)[1] == ["new/4#.png", "dog"]
  assert manifest.read_text() == before


@pytest.mark.parametrize(
  "write",
  [
    lambda root, path: label_studio.write_tasks(
      root.parent / "label_next.csv", path, document_root=root, images_dir=root
    ),
    lambda root, path: label_studio.write_manifest(
      RECORDED, path, document_root=root
    ),
    lambda root, path: fiftyone.write_dataset(
      root.parent / "label_next.csv", path.parent, images_dir=root
    ),
  ],
)
def test_the_folder_of_an_output_is_made(root, write):
  table(root)
  write(root, root.parent / "new folder" / "deep" / "labels.json")
  assert (root.parent / "new folder" / "deep" / "labels.json").is_file()
  with pytest.raises(
    errors.WorkdirError, match=r"cannot be written .*name anoth"
  ):
    write(root, root.parent / "label_next.csv" / "labels.json")


def test_what_is_read_is_not_written_over(root):
  manifest, link = root.parent / "manifest.csv", root.parent / "link"
  manifest.write_text("path,label\nnew/4#.png,dog\n")
  link.symlink_to(manifest)
  export = change(root, lambda tasks: None)
  flags = {"document_root": root}
  before = {p: p.read_bytes() for p in (export, manifest, table(root))}
  for output, name in (
    (manifest, "manifest"),
    (link, "manifest"),
    (export, "e"),
  ):
    with pytest.raises(errors.InputError, match=rf"also read \({name}"):
      label_studio.write_manifest(export, output, manifest=manifest, **flags)
  with pytest.raises(errors.InputError, match=r"also read \(table\)"):
    label_studio.write_tasks(table(root), table(root), images_dir=root, **flags)
  assert {p: p.read_bytes() for p in before} == before


def odd_ways(root):
  """Ways of writing the path of one image."""
  name = "new/caf\u00e9 & co.png"
  (root / name).touch()
  return [
    name,
    f" ./new/../{name} ",
    unicodedata.normalize("NFD", name),
    urllib.parse.quote(name),
    str(root / name),
    urllib.parse.quote(str(root / name)),
  ]


@pytest.mark.parametrize("way", range(6))
def test_an_image_is_found_however_its_path_is_written(root, way):
  name, *_ = ways = odd_ways(root)
  written = ways[way]
  manifest, output = root.parent / "m.csv", root.parent / "out.csv"
  manifest.write_text(f'path,label\n"{written}",\n', encoding="utf-8")
  for data in (
    {"path": name},
    {"path": written},
    {"image": f"/data/local-files/?d={written}"},
    {"image": f"http://host:8080/data/local-files/?d={written}"},
  ):
    task = {"data": data, "annotations": [{"result": [choose("cat")]}]}
    export = change(root, lambda tasks, task=task: [task])
    answers = label_studio.write_manifest(
      export, output, document_root=root, manifest=manifest
    )
    assert answers.labels == {name: "cat"}
    assert read_rows(output)[1:] == [[written, "cat"]]


def test_a_name_that_looks_quoted_is_one(root):
  (root / "a%20b.png").touch()
  (root / "a b.png").touch()
  found = places.Places(root)
  assert found.name("a%20b.png") == "a%20b.png"
  assert found.name("a%2520b.png") == "a%20b.png"
  assert found.name("c%20d.png") == "c%20d.png"
  assert found.name("../x.png") == "../x.png"


@pytest.mark.skipif(sys.platform == "darwin", reason="its names are UTF-8")
def test_names_that_are_not_utf_8_come_back(root):
  name = os.fsdecode(b"new/caf\xe9.png")
  (root / name).touch()
  path = root.parent / "label_next.csv"
  path.write_text(f"{HEADER}\nnew/caf\\xe9.png,cat,0.75,0.5,0.25,x\n")
  tasks = write_tasks(root)
  export = root.parent / "export.json"
  export.write_text(json.dumps(exported(tasks, lambda task: "cat")))
  output = root.parent / "out.csv"
  for manifest in (None, root.parent / "first.csv"):
    answers = label_studio.write_manifest(
      export, output, document_root=root, manifest=manifest
    )
    assert answers.labels == {name: "cat"}
    assert read_rows(output)[1:] == [["new/caf\\xe9.png", "cat"]]
    output.rename(root.parent / "first.csv")


def test_images_on_a_server_need_no_document_root(root):
  table(root)
  tasks = write_tasks(root, document_root=None, url_prefix="https://host/")
  assert tasks[1]["data"]["image"] == "https://host/new/3.png"
  # As docs/interchange.md has it, with nothing else.
  beside, output = root / "predictions.csv", root.parent / "tasks.json"
  table(root).rename(beside)
  label_studio.write_tasks(beside, output, url_prefix="https://host/")
  assert json.loads(output.read_text()) == tasks
  with pytest.raises(
    errors.InputError, match=r"document_root is missing: .* or url_prefix"
  ):
    label_studio.write_tasks(beside, output)


@pytest.mark.parametrize(
  ("content", "problem"),
  [
    (None, "there is no such manifest"),
    ("", "is no manifest"),
    ("path,class\n", "has the columns .*give a CSV file with the columns path"),
    ("path,label\na.png\n", "rows of other lengths"),
  ],
)
def test_manifests_that_are_none(root, content, problem):
  manifest = root.parent / "manifest.csv"
  if content is not None:
    manifest.write_text(content)
  with pytest.raises(
    (errors.InputError, errors.MissingFileError), match=problem
  ):
    label_studio.write_manifest(
      RECORDED, root.parent / "out.csv", document_root=root, manifest=manifest
    )


def exported(tasks, answer):
  """What Label Studio exports of tasks: with an id, and with answers."""
  return [
    {
      "id": number,
      "data": task["data"],
      "predictions": [number],
      "annotations": [
        {
          "id": number,
          "result": [] if answer(task) is None else [choose(answer(task))],
          "was_cancelled": answer(task) is None,
          "ground_truth": False,
        }
      ],
    }
    for number, task in enumerate(tasks, 1)
  ]


@pytest.mark.slow
def test_from_predictions_to_training(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  own_data_runs.write(tmp_path)
  random_classifier.make().save("saved")
  inputs = predict.prepare(
    None,
    "",
    images="photos/unlabelled",
    classifier="saved",
    add_class=[],
    head="soft_nn",
    output="predictions.csv",
  )
  assert predict.run(inputs) == 0
  count = label_studio.write_tasks(
    "predictions.csv", "tasks.json", document_root="photos"
  )
  assert count == 42
  tasks = json.loads(pathlib.Path("tasks.json").read_text())
  names = [task["data"]["path"] for task in tasks]
  # Every third one is skipped.
  answers = dict(zip(names, ["a", "b", None] * 14, strict=True))
  export = exported(tasks, lambda task: answers[task["data"]["path"]])
  pathlib.Path("export.json").write_text(json.dumps(export))
  read = label_studio.write_manifest(
    "export.json",
    "photos/more.csv",
    document_root="photos",
    class_names=("a", "b"),
    manifest="photos/labels.csv",
  )
  assert read.num_labelled == 28
  assert len(read.skipped) == 14
  config = own_data_runs.config("table", data__manifest="photos/more.csv")
  section = pretrain.config_lib.resolve(config).data
  assert section.pipeline == "host"
  train = load_dataset.open_catalog(section).train
  labels = {
    train.images.key(row): label for row, label in enumerate(train.labels)
  }
  want = {name: {"a": 0, "b": 1, None: -1}[x] for name, x in answers.items()}
  assert labels.items() >= want.items()
  assert sum(label >= 0 for label in labels.values()) == 6 + 28
  # What the first steps of training get; the steps themselves take minutes to
  # compile.
  prepared = pretrain.prepare(config, "run")
  with prepared.experiment.pipeline as pipeline:
    batches = pipeline.inputs(0, 3).batches
  drawn = {int(row) for batch in batches for row in batch.support.id}
  names = {train.images.key(row) for row in drawn}
  assert len({name for name in names if answers.get(name)}) > 5
  for batch in batches:
    support_labels = train.labels[np.asarray(batch.support.id)]
    np.testing.assert_array_equal(
      support_labels[: len(batch.support_labels)], batch.support_labels
    )
