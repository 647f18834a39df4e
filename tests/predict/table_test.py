"""predictions.csv and .parquet: rows that survive a crash."""

import csv
import pathlib
import re
import sys

import numpy as np
import pytest

from paws_jax import errors
from paws_jax import text
from paws_jax.predict import csv_rows
from paws_jax.predict import rows_file
from paws_jax.predict import table as table_lib
from tests import odd_files

HEADER = table_lib.columns(3, 1)
ABOUT = {"classifier": "abc", "images": "/images"}
# What a file name may be.
NAMES = [
  "a.png",
  'quote".png',
  "line\nend.png",
  "no utf-8 \udcff.png",
  "e,.png",
  "no utf-8 \\xff.png",
  "return\r.png",
]


def row(name):
  numbers = csv_rows.is_number
  return [name, *("0.25" if numbers(c) else "cat" for c in HEADER[1:])]


def open_file(path, images=(), **about):
  return table_lib.PredictionsFile(
    path, HEADER, {**ABOUT, **about}, images=images
  )


def read(path):
  with path.open(newline="", encoding="utf-8") as f:
    return [[text.unescape(x) for x in fields] for fields in csv.reader(f)]


@pytest.fixture(params=["p.csv", "p.parquet"])
def path(request, tmp_path):
  return tmp_path / request.param


def stored(path):
  """Names in a finished file."""
  if path.suffix == ".csv":
    header, *rows = read(path)
    assert header == HEADER
    return [row[0] for row in rows]
  parquet = pytest.importorskip("pyarrow.parquet")
  table = parquet.read_table(path)
  assert table.column_names == HEADER
  assert set(table["probability"].to_pylist()) <= {0.25}
  return [text.unescape(name) for name in table["path"].to_pylist()]


def test_pandas_reads_all_names_as_documented(tmp_path, monkeypatch):
  pandas = pytest.importorskip("pandas")
  names = [*NAMES, "007", "NA", " space.png", "=1+1"]
  with open_file(tmp_path / "predictions.csv") as file:
    file.write(map(row, names))
  monkeypatch.chdir(tmp_path)
  docs = pathlib.Path(__file__).parents[2] / "docs" / "predict.md"
  (code,) = re.findall(r"```python\n(names = .*?)```", docs.read_text(), re.S)
  found = {"pandas": pandas}
  exec(code, found)
  assert [text.unescape(name) for name in found["table"]["path"]] == names
  assert found["table"]["probability"].tolist() == [0.25] * len(names)


def test_columns():
  names = "path predicted_class probability top1_class top1_probability "
  names += "top2_class top2_probability top3_class top3_probability entropy "
  names += "novelty support_1 support_1_class support_1_weight"
  assert names.split() == HEADER
  assert "top5_class" in table_lib.columns(10, 10)
  assert "top6_class" not in table_lib.columns(10, 10)
  assert table_lib.columns(10, 10)[-1] == "support_3_weight"


def test_a_column_more_where_the_classifier_has_it():
  names = table_lib.columns(3, 1, in_domain=True)
  assert names[names.index("novelty") + 1] == "in_domain"
  assert [name for name in names if name != "in_domain"] == HEADER
  # In a Parquet file a number, not a text.
  assert csv_rows.is_number("in_domain")


def test_rows_are_added_to_those_that_are_there(path):
  for i, name in enumerate(NAMES):
    with open_file(path) as file:
      assert not file.notice
      assert file.done == set(NAMES[:i])
      file.write(iter([row(name)]))
      assert file.finish() is None
  assert stored(path) == NAMES
  assert not path.with_name("p.parquet.part").exists()


def test_a_killed_run_goes_on(path):
  with open_file(path) as file:
    file.write(map(row, NAMES))
  rows = path if path.suffix == ".csv" else path.with_name("p.parquet.part")
  whole = rows.read_bytes()
  # Cut anywhere, the rows before are kept, and nothing else.
  ends = [len(whole[: whole.index(b"\n") + 1])]
  for _ in NAMES[:2]:
    ends.append(whole.index(b"\n", ends[-1]) + 1)
  for cut in range(ends[0], ends[2] + 20):
    rows.write_bytes(whole[:cut])
    with open_file(path) as file:
      assert file.done == set(NAMES[: sum(end <= cut for end in ends[1:])])
  rows.write_bytes(whole[: ends[2] + 20] + b"\0\0\n\0")
  with open_file(path) as file:
    missing = [name for name in NAMES if name not in file.done]
    assert len(missing) == len(NAMES) - 2
    file.write(map(row, missing))
    file.finish()
  assert stored(path) == NAMES


def lines(names):
  return csv_rows.encode(map(row, names)).decode()


# What people and programs make of a table, and which rows stay in the file.
CHANGES = {
  "a column more": (lambda t: t.replace("\n", ",note\n"), ()),
  "a byte order mark": (lambda t: "\ufeff" + t, "abcd"),
  "semicolons": (lambda t: t.replace(",", ";"), ()),
  "another header": (lambda t: t.replace("entropy", "doubt"), ()),
  "UTF-16": (lambda t: t.encode("utf-16"), ()),
  "columns in another order": (lambda t: t.replace("path,", ""), ()),
  "a comma too many": (lambda t: t.replace("b.png,", "b.png,,"), "acd"),
  "a quote too many": (lambda t: t.replace("b.png,", 'b.png,"'), "a"),
  "a quote in a name": (lambda t: t.replace("b.png", '"b.png'), "a"),
  "an empty line": (lambda t: t.replace("b.png", "\nb.png"), "abcd"),
  "a line of notes": (lambda t: t.replace("b.png", "NB\nb.png"), "abcd"),
  "notes below": (lambda t: t + "checked by hand\n", "abcd"),
  "notes without a line end": (lambda t: t + "checked by hand", "abcd"),
  "no last line end": (lambda t: t.replace("cat", "dog")[:-1], "abc"),
  "zeros in a row": (lambda t: t.replace("b.png", "b.png\0\n"), "acd"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_somebody_has_made_of_the_file_is_kept(tmp_path, change):
  path, names = tmp_path / "p.csv", [f"{x}.png" for x in "abcd"]
  with open_file(path) as file:
    file.write(map(row, names))
  made, kept = CHANGES[change]
  changed = made(path.read_text())
  if isinstance(changed, str):
    changed = changed.encode()
  path.write_bytes(changed)
  with open_file(path, images=names) as file:
    assert "p.csv is not as this task writes it" in file.notice
    assert "it is now p.old.csv" in file.notice
    assert file.done == {f"{x}.png" for x in kept} - {"NB"}
    file.write(map(row, [name for name in names if name not in file.done]))
    file.finish()
  assert path.with_name("p.old.csv").read_bytes() == changed
  assert sorted(stored(path)) == names
  with open_file(path) as file:
    assert not file.notice


@pytest.mark.parametrize(
  "made",
  [
    lambda t: t.replace("0.25", "0.75"),
    lambda t: t.replace("\n", "\r\n"),
    lambda t: t.replace(lines(["b.png"]), ""),
    lambda t: "".join(sorted(t.splitlines(keepends=True), reverse=True)),
  ],
  ids=["values", "line ends of Windows", "a row less", "rows in another order"],
)
def test_changes_that_leave_a_table_stay_in_it(tmp_path, made):
  path = tmp_path / "p.csv"
  with open_file(path) as file:
    file.write(map(row, ["a.png", "b.png", "c.png"]))
  changed = made(path.read_text())
  path.write_bytes(changed.encode())
  with open_file(path) as file:
    assert not file.notice
    assert len(file.done) == changed.count(".png")
    file.write(map(row, ["d.png"]))
  assert path.read_bytes().decode() == changed + lines(["d.png"])


@pytest.mark.parametrize(
  ("tail", "own"),
  [
    ("b.p", True),
    ('"line\nen', True),
    ("b.png,cat,0.2", True),
    ("b.png,ca", True),
    ("c.png,ca", False),
    ("b.png,cat,high", False),
    ("b.png checked", False),
    (lines(["b.png"])[:-1], False),
    ("b.png,cat,0.25\0\0\0", True),
    ("\0\0", True),
  ],
)
def test_only_the_beginning_of_a_row_is_dropped(tmp_path, tail, own):
  path = tmp_path / "p.csv"
  with open_file(path) as file:
    file.write(map(row, ["a.png"]))
  before = path.read_bytes()
  path.write_bytes(before + tail.encode())
  with open_file(path, images=["a.png", "b.png", "line\nend.png"]) as file:
    assert file.done == {"a.png"}
    assert bool(file.notice) is not own
  assert path.read_bytes() == before
  assert path.with_name("p.old.csv").exists() is not own


def test_rows_of_version_0_1_0_become_utf8(tmp_path):
  path = tmp_path / "p.csv"
  with open_file(path) as file:
    file.write(map(row, NAMES[3:4]))
  old = path.read_bytes().replace(rb"\xff", b"\xff")
  path.write_bytes(old)
  with open_file(path) as file:
    assert file.done == set(NAMES[3:4])
    assert "row 2 is not UTF-8" in file.notice
  assert stored(path) == NAMES[3:4]
  assert path.with_name("p.old.csv").read_bytes() == old


@pytest.mark.parametrize("how", ["column", "null", "no table"])
def test_a_parquet_file_of_somebody_is_kept(tmp_path, how):
  pyarrow = pytest.importorskip("pyarrow")
  from pyarrow import parquet as pq

  path = tmp_path / "p.parquet"
  with open_file(path) as file:
    file.write(map(row, ["a.png", "b.png"]))
    file.finish()
  table = pq.read_table(path)
  if how == "column":
    pq.write_table(table.append_column("note", [["x", "y"]]), path)
  elif how == "null":
    place = table.column_names.index("entropy")
    empty = pyarrow.array([None, None], pyarrow.float32())
    pq.write_table(table.set_column(place, "entropy", empty), path)
  else:
    path.write_bytes(b"notes")
  changed = path.read_bytes()
  with open_file(path) as file:
    assert "p.parquet is now p.old.parquet" in file.notice
    assert not file.done
    file.write(map(row, ["a.png"]))
    file.finish()
  assert path.with_name("p.old.parquet").read_bytes() == changed
  assert stored(path) == ["a.png"]


def test_a_number_that_is_none_does_not_end_a_parquet_file(tmp_path):
  path = tmp_path / "p.parquet"
  with open_file(path) as file:
    file.write(map(row, ["a.png", "b.png"]))
  part = path.with_name("p.parquet.part")
  part.write_text(part.read_text().replace("b.png,cat,0.25", "b.png,cat,?"))
  with open_file(path) as file:
    assert file.done == {"a.png"}
    file.write(map(row, ["b.png"]))
    file.finish()
  assert stored(path) == ["a.png", "b.png"]
  assert "?" in path.with_name("p.old.parquet.part").read_text()


def test_a_list_of_unreadable_images_that_was_annotated_is_kept(path):
  with open_file(path) as file:
    file.add_unreadable({"a": "damaged"})
    listed = file.list_unreadable()
  notes = listed.read_text() + "b,asked for a new one\n"
  listed.write_text(notes)
  with open_file(path) as file:
    file.list_unreadable()
  assert not listed.exists()
  assert listed.with_name("p.unreadable.old.csv").read_text() == notes


def test_rows_of_something_else_are_set_aside(path):
  with open_file(path) as file:
    file.write(map(row, NAMES[:1]))
    file.finish()
  with open_file(path, classifier="other") as file:
    assert not file.done
    assert f"{path.name}: its rows are of another classifier; " in file.notice
    file.write(map(row, NAMES[:2]))
    file.finish()
  assert stored(path.with_name(f"p.old{path.suffix}")) == NAMES[:1]
  assert stored(path) == NAMES[:2]
  with open_file(path, classifier="other") as file:
    assert not file.notice
    assert len(file.done) == 2


def test_unreadable_images_are_listed(path):
  with open_file(path) as file:
    file.write(map(row, NAMES[:1]))
    file.add_unreadable({NAMES[3]: "damaged", "b": "empty"})
    listed = file.finish()
  assert listed.name == "p.unreadable.csv"
  want = [["path", "reason"], [NAMES[3], "damaged"], ["b", "empty"]]
  assert read(listed) == want
  with open_file(path) as file:
    assert file.finish() is None
  assert not listed.exists()


def test_two_processes_do_not_write_one_file(path):
  with (
    open_file(path),
    pytest.raises(errors.WorkdirError, match="by another process"),
  ):
    open_file(path)


def test_a_file_in_use_is_not_set_aside(path):
  with open_file(path) as file:
    file.write(map(row, NAMES[:1]))
    with pytest.raises(errors.WorkdirError, match="by another process"):
      open_file(path, classifier="other")
    file.finish()
  assert stored(path) == NAMES[:1]
  with open_file(path) as file:
    assert file.done == {NAMES[0]}


def test_what_is_set_aside_stays(path):
  for i, name in enumerate(NAMES[:3]):
    with open_file(path, classifier=i) as file:
      file.write(map(row, [name]))
      file.finish()
  assert stored(path.with_name(f"p.old{path.suffix}")) == NAMES[:1]
  assert stored(path.with_name(f"p.old-1{path.suffix}")) == NAMES[1:2]
  # Rows of a run that was killed, too.
  with open_file(path, classifier=2) as file:
    file.write(map(row, NAMES[3:]))
  with open_file(path, classifier=3) as file:
    assert not file.done
  rows = {
    "p.csv": "p.old-2.csv",
    "p.parquet": "p.old.parquet.part",
  }[path.name]
  assert rows in file.notice
  kept = read(path.with_name(rows))
  assert [name for name, *_ in kept[1:]] == NAMES[2:]


@pytest.mark.parametrize("text", ['{"class', "[" * 100_000, "", "[1]", "3"])
def test_damaged_settings_are_refused(path, text):
  with open_file(path):
    pass
  path.with_name(f"{path.name}.json").write_text(text)
  with pytest.raises(errors.WorkdirError, match=r"json is not (a )?JSON"):
    rows_file.check_path(str(path), table_lib.SUFFIXES)


def test_a_start_that_is_killed_leaves_nothing_in_the_way(path, monkeypatch):
  def kill(*unused):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(rows_file.files, "replace_text", kill)
    with pytest.raises(KeyboardInterrupt):
      open_file(path)
  assert rows_file.check_path(str(path), table_lib.SUFFIXES) == path
  with open_file(path) as file:
    file.write(map(row, NAMES[:1]))


@pytest.mark.parametrize(
  ("name", "problem"),
  [
    ("p.txt", "ends in neither .csv nor .parquet"),
    ("gs://bucket/p.csv", "is in a bucket"),
    ("/proc/p.csv", r"cannot be written \(.*with --output=FILE\.csv"),
    ("deep/p.csv/q.csv", r"cannot be written \(Not a directory\): give"),
    ("mine.csv", r"was not written by this task \(no mine\.csv\.json is"),
  ],
)
def test_other_places_are_refused(tmp_path, monkeypatch, name, problem):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "mine.csv").write_text("path\n")
  (tmp_path / "deep").mkdir()
  (tmp_path / "deep" / "p.csv").touch()
  with pytest.raises(ValueError, match=problem):
    rows_file.check_path(name, table_lib.SUFFIXES)
  assert rows_file.check_path("p.csv", table_lib.SUFFIXES) == tmp_path / "p.csv"


def test_parquet_needs_pyarrow(monkeypatch):
  monkeypatch.setitem(sys.modules, "pyarrow", None)
  with pytest.raises(
    errors.MissingPackageError, match=r"needs pyarrow.*paws_jax\[parquet\]"
  ):
    rows_file.check_path("p.parquet", table_lib.SUFFIXES)


def test_a_row_says_what_was_predicted():
  class Classifier:
    class_names = ("cat", "dog", "eel")

    class support_bank:
      labels = np.array([2])
      names = ("eel 1",)

  predictions = table_lib.predictions_lib.Predictions(
    probabilities=np.array([[0.25, 0.125, 0.625]], np.float32),
    classes=np.array([2]),
    entropy=np.array([0.9]),
    novelty=np.array([0.0123456789]),
    support_indices=np.array([[0]]),
    support_weights=np.array([[0.75]]),
  )
  (got,) = table_lib.rows(["a"], predictions, Classifier)
  assert dict(zip(HEADER, got, strict=True)) == {
    **{"path": "a", "predicted_class": "eel", "probability": "0.625"},
    **{"top1_class": "eel", "top1_probability": "0.625"},
    **{"top2_class": "cat", "top2_probability": "0.25"},
    **{"top3_class": "dog", "top3_probability": "0.125"},
    **{"entropy": "0.9", "novelty": "0.0123457"},
    **{"support_1": "eel 1", "support_1_class": "eel"},
    "support_1_weight": "0.75",
  }


@pytest.mark.parametrize("kind", ["pipe", "device", "directory"])
@pytest.mark.parametrize("beside", ["", ".json", ".part"])
def test_what_is_no_file_is_refused_before_the_work(tmp_path, kind, beside):
  path = tmp_path / "predictions.csv"
  (tmp_path / "predictions.csv.json").write_text("{}")
  (tmp_path / f"predictions.csv{beside}").unlink(missing_ok=True)
  odd_files.make(tmp_path / f"predictions.csv{beside}", kind)
  with pytest.raises(errors.WorkdirError, match=odd_files.KINDS[kind]):
    rows_file.check_path(str(path), table_lib.SUFFIXES)


def test_nothing_is_left_beside_a_file(path):
  with open_file(path) as file:
    pass
  assert not path.with_name("p.parquet.part").exists()
  with open_file(path) as file:
    with (
      pytest.raises(errors.WorkdirError, match="being written by another"),
      open_file(path),
    ):
      pass
    file.write(map(row, NAMES))
    file.finish()
  left = {p.name for p in path.parent.iterdir()}
  assert left == {path.name, f"{path.name}.json", ".written.json"}


def test_a_lock_that_was_removed_is_made_again(path, monkeypatch):
  hold, held = rows_file.locks.hold, []

  def remove_first(descriptor, **options):
    if not held:
      # Its holder has ended in between.
      path.with_name(f".{path.name}.lock").unlink()
    held.append(descriptor)
    hold(descriptor, **options)

  monkeypatch.setattr(rows_file.locks, "hold", remove_first)
  with open_file(path):
    assert len(held) == 2
    with pytest.raises(errors.WorkdirError), open_file(path):
      pass
