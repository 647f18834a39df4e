"""The emoji data set, and the table of heads."""

import csv
import io
import json
import signal
import tarfile
import types

import numpy as np
import pytest
from PIL import Image

from benchmarks.own_images import emoji
from benchmarks.own_images import heads
from paws_jax.runs import checkpoint
from paws_jax.tasks import pretrain

EMOJI = [
  ("0031", "Symbols"),
  ("1f600", "Smileys & Emotion"),
  ("1f354", "Food & Drink"),
  ("1f3fb", "Component"),
]


def _archive(path, vendor):
  """Writes an archive as of npm, with transparent pictures."""
  png = io.BytesIO()
  Image.new("RGBA", (64, 64), (255, 0, 0, 0)).save(png, "PNG")
  listed = [
    {
      "unified": code,
      "category": category,
      "image": f"{code}.png",
      f"has_img_{vendor}": code != "1f354" or vendor == "google",
    }
    for code, category in EMOJI
  ]
  contents = {
    "emoji.json": json.dumps(listed).encode(),
    "package.json": json.dumps({"name": f"emoji-datasource-{vendor}"}).encode(),
  }
  contents |= {f"img/{vendor}/64/{c}.png": png.getvalue() for c, _ in EMOJI}
  with tarfile.open(path, "w:gz") as archive:
    for name, content in contents.items():
      info = tarfile.TarInfo(f"package/{name}")
      info.size = len(content)
      archive.addfile(info, io.BytesIO(content))
  return str(path)


def test_pictures_of_an_emoji_are_of_one_part(tmp_path):
  archives = [
    _archive(tmp_path / f"{vendor}.tgz", vendor)
    for vendor in ("google", "twitter")
  ]
  rows = emoji.make(archives, tmp_path / "out")
  assert len(rows) == 5
  with open(tmp_path / "out" / "labels.csv", encoding="utf-8") as file:
    assert list(csv.DictReader(file)) == rows
  assert {row["label"] for row in rows} == {
    "symbols",
    "smileys-emotion",
    "food-drink",
  }
  parts = {}
  for row in rows:
    name = row["path"].rpartition("/")[2]
    assert parts.setdefault(name, row["split"]) == row["split"]
    # Transparent is white.
    picture = np.asarray(Image.open(tmp_path / "out" / row["path"]))
    assert (picture == 255).all()


def test_a_fifth_of_the_emoji_is_for_tests():
  share = np.mean([emoji.is_test(f"{code:x}") for code in range(5000)])
  assert share == pytest.approx(0.2, abs=0.02)


def test_another_archive_is_refused(tmp_path):
  with tarfile.open(tmp_path / "other.tgz", "w:gz"):
    pass
  with pytest.raises(ValueError, match=r"has no package/emoji\.json"):
    emoji.make([str(tmp_path / "other.tgz")], tmp_path / "out")


def test_the_error_is_larger_where_images_come_in_groups():
  values = np.array([1.0, 1.0, -1.0, -1.0] * 10)
  alone = heads.clustered_error(values, [str(k) for k in range(40)])
  assert alone == pytest.approx(values.std(ddof=1) / np.sqrt(40))
  paired = heads.clustered_error(values, [str(k // 2) for k in range(40)])
  assert paired == pytest.approx(alone * np.sqrt(2), rel=0.02)


def test_the_table_pairs_heads_by_draw():
  names = ["a/1.png", "b/1.png", "a/2.png", "b/2.png"]
  rows = [
    {
      "head": head,
      "draw": draw,
      "top1": float(np.mean(right)),
      "balanced": 0.5,
      "names": names,
      "right": right,
    }
    for head, draw, right in (
      ("logistic regression", 0, [1, 0, 0, 0]),
      ("logistic regression", 1, [1, 1, 0, 0]),
      ("PAWS, estimated prior", 0, [1, 1, 1, 0]),
    )
  ]
  lines = heads.table(rows).splitlines()
  assert lines[2] == "| logistic regression | 25.0 | 50.0 | 37.5 | 50.0 |  |"
  assert lines[3].startswith(
    "| PAWS, estimated prior | 75.0 |  | 75.0 | 50.0 |"
  )
  assert "+50.0 ± " in lines[3]


def test_a_stopped_run_is_not_evaluated(tmp_path, monkeypatch):
  stopped = pretrain.Outcome(None, 3, signal.SIGTERM)
  monkeypatch.setattr(pretrain, "train", lambda _: stopped)
  monkeypatch.setattr(
    checkpoint, "Checkpointer", lambda *_, **__: pytest.fail("it is read")
  )
  with pytest.raises(SystemExit) as ended:
    heads._paws(types.SimpleNamespace(workdir=tmp_path, experiment=None))
  assert ended.value.code == 130
