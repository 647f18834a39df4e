"""What reading the files of a data set finds."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from paws_jax import errors
from paws_jax.data.host import evaluation_images
from paws_jax.data.sources import arrays as arrays_lib
from paws_jax.data.sources import catalog
from paws_jax.doctor import inspect
from paws_jax.doctor import measure


def _png(seed, height=6, width=8):
  pixels = np.random.default_rng(seed).integers(
    0, 256, (height, width, 3), np.uint8
  )
  encoded = io.BytesIO()
  Image.fromarray(pixels).save(encoded, "PNG")
  return encoded.getvalue()


def _part(root, contents, labels):
  """Files of these contents; None leaves one away."""
  for name, content in contents.items():
    if content is not None:
      (root / name).write_bytes(content)
  files = catalog.Files(root=str(root), paths=tuple(contents))
  return catalog.Part(files, np.asarray(labels, np.int32))


@pytest.fixture
def found(tmp_path):
  """Two classes of two images, two of no class, two to test on."""
  names = ["a0", "a1", "b0", "b1", "u0", "u1"]
  train = {name: _png(k) for k, name in enumerate(names)}

  def make(changes=None, test=None):
    held_out = {"t0": _png(10), "t1": _png(11)} | (test or {})
    return catalog.Catalog(
      name="toy",
      class_names=("a", "b"),
      train=_part(tmp_path, train | (changes or {}), [0, 0, 1, 1, -1, -1]),
      test=_part(tmp_path, held_out, [0, 1]),
    )

  return make


def _inspect(listed, calls=None):
  decode_size = measure.file_size_in_pixels(max_pixels=100, canvas_size=4)
  calls = [] if calls is None else calls
  return inspect.check_images(
    listed, decode_size, progress=lambda *done: calls.append(done)
  )


def test_groups_are_what_the_images_are_for(found):
  listed = inspect.image_groups(found(), np.array([1, 2]))
  assert [group.name for group in listed] == ["labelled", "unlabelled", "test"]
  rows = [group.rows.tolist() for group in listed]
  assert rows == [[1, 2], [0, 3, 4, 5], [0, 1]]
  labels = [group.labels.tolist() for group in listed]
  assert labels == [[0, 1], [0, 1, -1, -1], [0, 1]]


def test_of_very_many_unlabelled_images_some_are_read(found, monkeypatch):
  monkeypatch.setattr(inspect, "MAX_UNLABELLED", 3)
  _, unlabelled, _ = inspect.image_groups(found(), np.array([0]))
  assert unlabelled.rows.tolist() == [1, 3, 5]
  assert unlabelled.num_images == 5


def test_sizes_are_those_of_the_files(found, monkeypatch):
  # Whatever the portions are, nothing is left out.
  monkeypatch.setattr(inspect, "_CHUNK_SIZE", 3)
  listed = inspect.image_groups(found({"u1": _png(3, 9, 5)}), np.arange(4))
  calls = []
  seen = _inspect(listed, calls)
  sizes = [(one.height, one.width) for one in seen["labelled"]]
  # Larger than the canvas, which they are reduced to fit.
  assert sizes == [(6, 8)] * 4
  assert seen["unlabelled"][1][1:4] == (9, 5, "")
  assert calls == [(k, 8) for k in range(1, 9)]


def test_what_cannot_be_read_has_a_reason(found):
  damaged = {"a0": None, "b0": b"<html>", "u0": _png(0)[:60], "u1": b""}
  seen = _inspect(inspect.image_groups(found(damaged), np.arange(4)))
  reasons = [one.reason for group in seen.values() for one in group]
  assert "it cannot be read (" in reasons[0]
  assert reasons[2] == "it is text (HTML or XML), not an image"
  assert reasons[4].startswith("damaged or incomplete")
  assert reasons[5] == "the file is empty"
  assert [bool(reason) for reason in reasons] == [1, 0, 1, 0, 1, 1, 0, 0]
  assert seen["labelled"][0].digest == b""
  assert seen["labelled"][2].height == 0


def test_what_cannot_be_evaluated_has_the_reason_of_evaluation(tmp_path):
  line = _png(0, 1, 90)
  part = _part(tmp_path, {"a": line, "b": _png(1)}, [0, 1])
  unlabelled = inspect.Group(
    "unlabelled", part.images, np.arange(2), part.labels, 2
  )
  listed = [unlabelled]
  for name in ("labelled", "val", "test"):
    listed.append(dataclasses.replace(unlabelled, name=name))
  resize = 2**17 // 90 + 1
  decode_size = measure.file_size_in_pixels(max_pixels=100, canvas_size=4)
  seen = inspect.check_images(
    listed, decode_size, progress=lambda *_: None, eval_resize=resize
  )
  images = evaluation_images.EvaluationImages(
    part.images, resize=resize, size=8, max_pixels=100
  )
  with pytest.raises(errors.BadImageError) as caught:
    images[:1]
  for group in listed:
    reason = "" if group is unlabelled else caught.value.reason
    assert seen[group.name][0][1:4] == (1, 90, reason)
    assert not seen[group.name][1].reason
  # One pixel less is still resized.
  seen = inspect.check_images(
    listed, decode_size, progress=lambda *_: None, eval_resize=resize - 1
  )
  assert not any(one.reason for looked in seen.values() for one in looked)


def test_an_image_of_too_many_pixels_is_not_decoded(found):
  huge = {"a1": _png(0, 11, 10)}
  seen = _inspect(inspect.image_groups(found(huge), np.arange(4)))
  assert "11 x 10 pixels, more than data.max_pixels" in (
    seen["labelled"][1].reason
  )


def _shared(found, labelled_ids=(0, 1, 2, 3)):
  listed = inspect.image_groups(found, np.array(labelled_ids))
  return inspect.duplicates(listed, _inspect(listed))


def test_without_repeats_there_is_nothing_to_say(found):
  assert _shared(found()) == []


def test_labelled_images_that_are_test_images(found):
  shared = _shared(found(test={"t0": _png(0), "t1": _png(3)}))
  assert shared == [("labelled", "test", [("a0", "t0"), ("b1", "t1")], False)]


def test_unlabelled_images_that_are_test_images(found):
  shared = _shared(found(test={"t1": _png(5)}))
  assert shared == [("unlabelled", "test", [("u1", "t1")], False)]


def test_one_image_under_two_labels(found):
  assert _shared(found({"b1": _png(0)})) == [
    ("labelled", "labelled", [("a0", "b1")], False)
  ]
  # The label of one of them is not used.
  assert _shared(found({"b1": _png(0)}), (0, 2)) == []


def test_copies_within_a_class(found):
  assert _shared(found({"a1": _png(0)})) == [
    ("labelled", "labelled", [("a0", "a1")], True)
  ]
  # The label of one of them is not used.
  assert _shared(found({"a1": _png(0)}), (0, 2, 3)) == []
  assert _shared(found({"a1": _png(0), "b0": _png(0), "b1": _png(0)})) == [
    ("labelled", "labelled", [("a0", "b0")], False),
    ("labelled", "labelled", [("a0", "a1"), ("b0", "b1")], True),
  ]


def test_repeats_among_what_is_trained_on(found):
  assert _shared(found({"u0": _png(0), "u1": _png(0)})) == []


def test_unreadable_files_are_not_taken_for_each_other(found):
  assert _shared(found({"a0": None, "b0": None})) == []
  # Empty ones have the same contents, and labels that contradict.
  assert len(_shared(found({"a0": b"", "b0": b""}))) == 1


def test_images_in_memory_are_their_pixels():
  images = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 1), np.uint8)
  labels = np.arange(6, dtype=np.int32) % 2
  test = np.concatenate([images[:1], 255 - images[1:2]])
  arrays = arrays_lib.Arrays(
    "toy", ("a", "b"), images, labels, test, labels[:2]
  )
  found = inspect.as_catalog(arrays)
  listed = inspect.image_groups(found, np.arange(2))
  seen = inspect.check_images(
    listed, measure.array_size(4, 5), progress=lambda *_: None
  )
  assert [one.height for one in seen["unlabelled"]] == [4] * 4
  low, high, largest = seen["test"][0].values
  assert (low, high) == (test[0].min(), test[0].max())
  assert largest == 255
  assert inspect.duplicates(listed, seen) == [
    ("labelled", "test", [("train row 0", "test row 0")], False)
  ]
