"""FiftyOne: a data set with predictions, embeddings and supports.

`samples` makes samples of it, for which `fiftyone` must be installed;
`write_dataset` writes files of its FiftyOneImageClassificationDataset, for
which it need not.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

from paws_jax import errors
from paws_jax import packages
from paws_jax import text
from paws_jax.interchange import tables
from paws_jax.predict import embeddings as embeddings_lib
from paws_jax.runs import files

_NUMBERS = ("entropy", "novelty", "in_domain")


def samples(
  table: str | os.PathLike[str],
  *,
  embeddings: str | os.PathLike[str] | None = None,
  images_dir: str | os.PathLike[str] | None = None,
) -> list[Any]:
  """Makes a sample of each row of a table of predictions.

  Fields: `prediction`, a Classification with its confidence; `entropy`,
  `novelty` and, with RoPAWS, `in_domain`; `supports`, Classifications of the
  labelled images that voted, each with its share as confidence and its name as
  `image`; `embedding` and `ground_truth`, where `embeddings` has them.

  Args:
    table: predictions.csv, predictions.parquet or label_next.csv.
    embeddings: file that `--task=embed` has written for the same images.
    images_dir: directory that the paths in the table are relative to; None:
      that of the images predicted.

  Returns:
    List of `fiftyone.Sample`.

  Raises:
    MissingPackageError: fiftyone is not installed.
    UserError: as `tables.read` and `embeddings.read`; an image of the table has
      no embedding.
  """
  packages.require("fiftyone.samples", "fiftyone")
  import fiftyone

  rows = tables.read(table, images_dir=images_dir)
  known = {} if embeddings is None else _embeddings(embeddings, rows)
  made = []
  for row in rows:
    fields = {name: row.number(name) for name in _NUMBERS if name in row.fields}
    supports = [
      fiftyone.Classification(label=label, confidence=share, image=name)
      for name, label, share in _supports(row)
    ]
    if supports:
      fields["supports"] = fiftyone.Classifications(classifications=supports)
    if embeddings is not None:
      fields["embedding"], label = known[row.name]
      if label:
        fields["ground_truth"] = fiftyone.Classification(label=label)
    prediction = fiftyone.Classification(
      label=row.predicted_class, confidence=row.probability
    )
    made.append(
      fiftyone.Sample(filepath=row.file, prediction=prediction, **fields)
    )
  return made


def write_dataset(
  table: str | os.PathLike[str],
  directory: str | os.PathLike[str],
  *,
  images_dir: str | os.PathLike[str] | None = None,
) -> int:
  """Writes predictions as files that FiftyOne imports; copies no image.

  `data.json` names the images, and `labels.json` the predicted classes, with
  confidence, entropy and novelty. Files that somebody has changed are kept
  under another name.

  Args:
    table: as of `samples`.
    directory: where to write; made if need be.
    images_dir: as of `samples`.

  Returns:
    The number of images.

  Raises:
    UserError: as `tables.read`.
  """
  rows = tables.read(table, images_dir=images_dir)
  classes = sorted({row.predicted_class for row in rows})
  places = {name: k for k, name in enumerate(classes)}
  width = len(str(len(rows)))
  keys = [f"{number:0{width}}" for number in range(1, len(rows) + 1)]
  labels = {
    key: {
      "label": places[row.predicted_class],
      "confidence": row.probability,
      "attributes": {
        name: row.number(name) for name in _NUMBERS if name in row.fields
      },
    }
    for key, row in zip(keys, rows, strict=True)
  }
  data = {
    f"{key}{os.path.splitext(row.file)[1]}": row.file
    for key, row in zip(keys, rows, strict=True)
  }
  target = files.resolve(directory)
  for name, value in (
    ("data.json", data),
    ("labels.json", {"classes": classes, "labels": labels}),
  ):
    files.check_writable(target / name, "name another directory")
    target.mkdir(parents=True, exist_ok=True)
    files.replace_output(target / name, json.dumps(value, indent=2) + "\n")
  return len(rows)


def _embeddings(
  path: str | os.PathLike[str], rows: list[tables.Row]
) -> dict[str, tuple[Any, str]]:
  """Embedding and label of each image, by name."""
  read = embeddings_lib.read(path)
  known = {
    name: (vector, label)
    for name, vector, label in zip(
      read.names, read.embeddings, read.labels, strict=True
    )
  }
  absent = [row.name for row in rows if row.name not in known]
  if absent:
    raise errors.InputError(
      f"{path} has no embedding of {len(absent)} of {len(rows)} images: "
      f"{text.first_few(map(repr, absent))}. Embed the same --images that were "
      "predicted."
    )
  return known


def _supports(row: tables.Row) -> list[tuple[str, str, float]]:
  """Name, class and share of the labelled images that a row names."""
  names = [n for n in row.fields if re.fullmatch(r"support_\d+", n)]
  return [
    (
      text.unescape(row.fields[name]),
      text.unescape(row.fields[f"{name}_class"]),
      row.number(f"{name}_weight"),
    )
    for name in names
  ]
