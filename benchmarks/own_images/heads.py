"""Compares heads on the features of one frozen network, with few labels.

  python -m benchmarks.own_images.heads --data=emoji --output=heads

Data is a directory with labels.csv, in which all images have a label, such as
that of `benchmarks.own_images.emoji`. For each draw of the labels: a vote of
the labelled images on the features, logistic regression on the cached views,
PAWS with the uniform prior and with an estimated one, by the recipe
configs/image_folder.py:pretrained. One JSON line a cell in heads.jsonl; a cell
that is there is not computed again, nor are features. The table is printed at
the end. Choose settings on other draws, such as 10.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import shutil
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn import linear_model
from sklearn import model_selection

from paws_jax.config import recipe_files
from paws_jax.evaluation import soft_nn
from paws_jax.runs import checkpoint
from paws_jax.runs import workdir as workdir_lib
from paws_jax.tasks import pretrain
from paws_jax.training import checkpoints
from paws_jax.training import trunk_features

_STRENGTHS = (0.1, 1.0, 10.0, 100.0)
_BASELINE = "logistic regression"


def _config(data: pathlib.Path, labels: int, draw: int, prior: str) -> Any:
  config = recipe_files.load("image_folder:pretrained")
  config.data.dir = str(data)
  config.data.manifest = str(data / "labels.csv")
  config.data.labels_per_class = labels
  config.data.split_seed = draw
  config.method.prior = prior
  return config


def _vote(built: Any, test: np.ndarray, labelled: np.ndarray) -> np.ndarray:
  """Predicts the classes of test images by soft nearest neighbors."""
  dataset = built.dataset
  return soft_nn.soft_nn_probabilities(
    test,
    labelled,
    dataset.labelled.labels,
    num_classes=dataset.num_classes,
    temperature=built.temperature,
  ).argmax(axis=1)


def _on_features(prepared: Any) -> np.ndarray:
  built = prepared.experiment
  images = built.dataset.test.images, built.dataset.labelled.images
  return _vote(built, *(built.embed_trunk(None, None, i) for i in images))


def _regression(prepared: Any) -> np.ndarray:
  """Trains on all cached views; its strength by cross-validation on these."""
  built = prepared.experiment
  support = np.asarray(built.pipeline.inputs(0, 1).images.support, np.float32)
  num_images, num_views, _ = support.shape
  rows = _unit(support.reshape(num_images * num_views, -1))
  labels = np.repeat(built.dataset.labelled.labels, num_views)
  groups = np.repeat(np.arange(num_images), num_views)
  scale = rows.std(axis=0).mean() * np.sqrt(rows.shape[1])
  search = model_selection.GridSearchCV(
    linear_model.LogisticRegression(max_iter=2000),
    {"C": _STRENGTHS},
    cv=model_selection.StratifiedGroupKFold(5),
  )
  search.fit(rows / scale, labels, groups=groups)
  test = _unit(built.embed_trunk(None, None, built.dataset.test.images))
  return search.predict(test / scale)


def _unit(rows: np.ndarray) -> np.ndarray:
  return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _paws(prepared: Any) -> np.ndarray:
  if pretrain.train(prepared).row is None:
    # Stopped: the same command goes on from the checkpoint.
    raise SystemExit(130)
  built = prepared.experiment
  trainer = built.trainer
  directory = prepared.workdir / workdir_lib.CHECKPOINTS
  with checkpoint.Checkpointer(directory, read_only=True) as checkpointer:
    _, state, _ = checkpoints.restore_latest(
      checkpointer, trainer, built.state_shapes()
    )
  variables = trainer.method.encoder_variables(state)
  parts = built.dataset.test.images, built.dataset.labelled.images
  rows = (
    built.embed(variables["params"], variables["batch_stats"], images)
    for images in parts
  )
  return _vote(built, *rows)


# The prior of the recipe, and what predicts the test images.
HEADS: Mapping[str, tuple[str, Callable[[Any], np.ndarray]]] = {
  "soft nearest neighbors": ("uniform", _on_features),
  _BASELINE: ("uniform", _regression),
  "PAWS, uniform prior": ("uniform", _paws),
  "PAWS, estimated prior": ("estimate", _paws),
}


def cell(
  data: pathlib.Path, output: pathlib.Path, labels: int, draw: int, head: str
) -> dict[str, Any]:
  """Computes a cell: which test images are classified correctly."""
  prior, predict = HEADS[head]
  run = output / f"{labels}_labels_draw_{draw}_{prior}"
  run.mkdir(parents=True, exist_ok=True)
  features = trunk_features.DIRECTORY
  for other in sorted(output.glob(f"*_labels_draw_*/{features}")):
    # Features of an image serve all draws.
    if not (run / features).exists() and any(other.iterdir()):
      shutil.copytree(other, run / features)
  prepared = pretrain.prepare(_config(data, labels, draw, prior), str(run))
  start = time.perf_counter()
  predicted = predict(prepared)
  test = prepared.experiment.dataset.test
  names = [test.name(k) for k in range(len(test))]
  right = predicted == test.labels
  return {
    "head": head,
    "draw": draw,
    "labels_per_class": labels,
    "num_labels": len(prepared.experiment.dataset.labelled),
    "seconds": round(time.perf_counter() - start, 1),
    "top1": float(right.mean()),
    "balanced": float(
      np.mean([right[test.labels == k].mean() for k in np.unique(test.labels)])
    ),
    "names": names,
    "right": right.astype(int).tolist(),
  }


def clustered_error(values: np.ndarray, groups: Sequence[str]) -> float:
  """Computes the standard error of a mean, whose groups are drawn together."""
  _, places = np.unique(np.asarray(groups), return_inverse=True)
  sums = np.bincount(places, values - values.mean())
  count = len(sums)
  return float(np.sqrt(np.sum(sums**2) * count / (count - 1)) / len(values))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
  """Formats means over draws, and differences to logistic regression."""
  found = {(row["head"], row["draw"]): row for row in rows}
  draws = sorted({row["draw"] for row in rows})
  lines = ["| head | " + " | ".join(f"draw {d}" for d in draws)]
  lines[0] += " | mean | balanced | to logistic regression |"
  lines.append("|---" * (len(draws) + 4) + "|")
  for head in HEADS:
    mine = [found[head, d] for d in draws if (head, d) in found]
    if not mine:
      continue
    cells = [
      f"{100 * found[head, d]['top1']:.1f}" if (head, d) in found else ""
      for d in draws
    ]
    for name in ("top1", "balanced"):
      cells.append(f"{100 * np.mean([row[name] for row in mine]):.1f}")
    both = [d for d in draws if {(head, d), (_BASELINE, d)} <= found.keys()]
    difference = ""
    if both and head != _BASELINE:
      values = np.mean(
        [
          np.subtract(found[head, d]["right"], found[_BASELINE, d]["right"])
          for d in both
        ],
        axis=0,
      )
      # Pictures of one emoji, by several artists, are of one file name.
      groups = [pathlib.Path(n).name for n in found[head, both[0]]["names"]]
      error = clustered_error(values, groups)
      difference = f"{100 * values.mean():+.1f} ± {100 * error:.1f}"
    lines.append(f"| {head} | {' | '.join(cells)} | {difference} |")
  return "\n".join(lines)


def _parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--data", required=True, help="with labels.csv")
  parser.add_argument("--output", required=True, help="of runs and results")
  parser.add_argument("--draws", default="0,1,2,3,4", help="label draws")
  parser.add_argument("--labels", type=int, default=10, help="labels a class")
  return parser.parse_args()


def main() -> None:
  """Computes the cells that are not there, and prints the table."""
  options = _parse()
  data, output = pathlib.Path(options.data), pathlib.Path(options.output)
  output.mkdir(parents=True, exist_ok=True)
  path = output / "heads.jsonl"
  lines = path.read_text().splitlines() if path.exists() else []
  rows = [json.loads(line) for line in lines]
  done = {(r["head"], r["draw"], r["labels_per_class"]) for r in rows}
  for draw in map(int, options.draws.split(",")):
    for head in HEADS:
      if (head, draw, options.labels) in done:
        continue
      row = cell(data, output, options.labels, draw, head)
      print(f"{head}, draw {draw}: {row['top1']:.3f}", flush=True)
      with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
      rows.append(row)
  print(table([r for r in rows if r["labels_per_class"] == options.labels]))


if __name__ == "__main__":
  main()
