"""Label Studio: tasks with predictions, and its answers as a manifest.

Examples:
  >>> label_studio.write_tasks(
  ...   "runs/photos/predictions.csv", "tasks.json", document_root="photos"
  ... )
  >>> label_studio.write_manifest(
  ...   "export.json", "manifest.csv", document_root="photos"
  ... )

Tasks are in its "basic" JSON format, and answers in its JSON export.
"""

from __future__ import annotations

import csv
import io
import json
import os
import urllib.parse
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any
from xml.sax import saxutils

from paws_jax import errors
from paws_jax import text as text_lib
from paws_jax.data.sources import listed_files
from paws_jax.interchange import label_studio_export
from paws_jax.interchange import places
from paws_jax.interchange import tables
from paws_jax.predict import find_images
from paws_jax.runs import files
from paws_jax.runs import provenance

# Names of the tags in `label_config`.
_IMAGE, _CHOICES = "image", "class"
# Columns of a table that are shown beside a task.
_ABOUT = ("entropy", "novelty", "in_domain", "reason")

read_export = label_studio_export.read_export
Answers = label_studio_export.Answers


def label_config(class_names: Iterable[str]) -> str:
  """The labeling interface of a project: an image and one class of several.

  Paste it under Settings, Labeling Interface, Code. Predictions of
  `write_tasks` are shown only where its names stand.
  """
  choices = "\n".join(
    f"    <Choice value={saxutils.quoteattr(name)}/>" for name in class_names
  )
  return (
    "<View>\n"
    f'  <Image name="{_IMAGE}" value="${_IMAGE}"/>\n'
    f'  <Choices name="{_CHOICES}" toName="{_IMAGE}" choice="single">\n'
    f"{choices}\n"
    "  </Choices>\n"
    "</View>\n"
  )


def write_tasks(
  table: str | os.PathLike[str],
  output: str | os.PathLike[str],
  *,
  document_root: str | os.PathLike[str] | None = None,
  images_dir: str | os.PathLike[str] | None = None,
  url_prefix: str = label_studio_export.LOCAL_FILES,
) -> int:
  """Writes one task for each row of a table, with its prediction.

  Tasks are in the order of the table. Their score is the probability, by which
  Label Studio can sort them.

  Args:
    table: predictions.csv, predictions.parquet or label_next.csv.
    output: the JSON file to import into a project; one that somebody has
      changed is kept under another name.
    document_root: directory that holds all images: that of Label Studio's
      local files (LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT); None, with
      `url_prefix`: that which the paths in the table are relative to.
    images_dir: directory that the paths in the table are relative to; None:
      that of the images predicted. For label_next.csv give `data.dir` of the
      run.
    url_prefix: stands before the path of an image, relative to
      `document_root`; another one for images in a bucket or on a server.

  Returns:
    The number of tasks.

  Raises:
    MissingFileError: the table or images do not exist.
    InputError: it is no such table, images are outside of `document_root`, or
      `output` is the table.
  """
  if document_root is None and url_prefix == label_studio_export.LOCAL_FILES:
    raise errors.InputError(
      "document_root is missing: give the directory that Label Studio serves, "
      "or url_prefix for images in a bucket or on a server."
    )
  tables.check_output(output, table=table)
  rows = tables.read(table, images_dir=images_dir)
  root = document_root or images_dir
  root = root or find_images.table_root(str(files.resolve(table)))
  tasks = [_task(row, root, url_prefix) for row in rows]
  tables.write(output, json.dumps(tasks, indent=2) + "\n")
  return len(tasks)


def _task(
  row: tables.Row, document_root: str | os.PathLike[str], url_prefix: str
) -> dict[str, Any]:
  path = tables.relative(row.file, document_root)
  choice = {
    "from_name": _CHOICES,
    "to_name": _IMAGE,
    "type": "choices",
    "value": {"choices": [row.predicted_class]},
  }
  prediction = {
    "model_version": f"paws_jax {provenance.version()}",
    "score": row.probability,
    "result": [choice],
  }
  about = {name: row.fields[name] for name in _ABOUT if name in row.fields}
  url = urllib.parse.quote(os.fsencode(path))
  return {
    "data": {
      _IMAGE: f"{url_prefix}{url}",
      # Comes back in the export, whatever becomes of the address.
      "path": text_lib.escape(path),
      **about,
    },
    "predictions": [prediction],
  }


def write_manifest(
  export: str | os.PathLike[str],
  output: str | os.PathLike[str],
  *,
  document_root: str | os.PathLike[str],
  class_names: Iterable[str] | None = None,
  manifest: str | os.PathLike[str] | None = None,
  correct: bool = False,
  control: str | None = None,
  url_prefix: str = label_studio_export.LOCAL_FILES,
) -> label_studio_export.Answers:
  """Writes the answers of an export as a manifest: path, label.

  Images without an answer, skipped ones among them, have no label there:
  they serve as unlabelled images. Train with `data.manifest` the manifest, and
  `data.dir` the `document_root`.

  Args:
    export: the file of Label Studio's export as JSON.
    output: the manifest, a CSV file; one that somebody has changed is kept
      under another name.
    document_root: as of `write_tasks`.
    class_names: those that an answer may have; None: any.
    manifest: another one, whose rows and columns are kept: answers fill in its
      labels, and other images follow. Its paths are relative to
      `document_root`, or absolute.
    correct: whether answers replace labels of `manifest` that differ.
    control: as of `read_export`.
    url_prefix: as of `read_export`.

  Returns:
    The answers.

  Raises:
    UserError: as `read_export`; also for a manifest that cannot be read, for
      labels of it that differ from the answers, without `correct`, and where
      `output` is the export or `manifest`.
  """
  tables.check_output(output, export=export, manifest=manifest)
  answers = label_studio_export.read_export(
    export,
    document_root=document_root,
    class_names=class_names,
    control=control,
    url_prefix=url_prefix,
  )
  header = ["path", "label"]
  rows: list[list[str]] = []
  if manifest is not None:
    header, rows = _manifest_rows(manifest)
  images = places.Places(document_root)
  rows = _filled_in(
    header, rows, answers.labels, images, manifest, correct=correct
  )
  content = io.StringIO()
  csv.writer(content, lineterminator="\n").writerows([header, *rows])
  tables.write(output, content.getvalue())
  return answers


def _manifest_rows(
  path: str | os.PathLike[str],
) -> tuple[list[str], list[list[str]]]:
  file = files.resolve(path)
  if not file.exists():
    raise errors.MissingFileError(f"{file}: there is no such manifest.")
  content = listed_files.read_table(str(file), str(file))
  try:
    table = io.StringIO(content.decode("utf-8-sig"), newline="")
    header, *rows = csv.reader(table, skipinitialspace=True, strict=True)
  except (ValueError, csv.Error) as error:
    raise errors.InputError(f"{file} is no manifest ({error}).") from None
  header = [name.strip() for name in header]
  rows = [row for row in rows if any(field.strip() for field in row)]
  lengths = {len(row) for row in rows} - {len(header)}
  place = listed_files.image_column(header)
  if place is None or "label" not in header or lengths:
    raise errors.InputError(
      f"{file} has the columns {listed_files.shown(header)}"
      + (", and rows of other lengths" if lengths else "")
      + ": give a CSV file with the columns path and label."
    )
  header[place] = "path"
  return header, rows


def _filled_in(
  header: list[str],
  rows: list[list[str]],
  labels: Mapping[str, str],
  images: places.Places,
  manifest: str | os.PathLike[str] | None,
  *,
  correct: bool,
) -> list[list[str]]:
  """The rows with the labels of the answers, and those of other images."""
  path, label = header.index("path"), header.index("label")
  filled, differ, left = [], [], dict(labels)
  for row in rows:
    name = images.name(row[path])
    answer = labels.get(name, "")
    left.pop(name, None)
    row = list(row)
    if answer and row[label].strip() not in ("", answer) and not correct:
      differ.append(f"{name!r}: {row[label]!r} and {answer!r}")
    row[label] = answer or row[label]
    filled.append(row)
  if differ:
    raise errors.InputError(
      f"{len(differ)} labels of {manifest} differ from the answers: "
      f"{text_lib.first_few(differ, separator='; ')}. Give correct=True to "
      "take the answers."
    )
  for name, answer in left.items():
    row = [""] * len(header)
    row[path], row[label] = text_lib.escape(name), answer
    filled.append(row)
  return filled
