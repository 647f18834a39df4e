import pathlib

import numpy as np
import pytest
from PIL import Image

from paws_jax import errors
from paws_jax.estimator import images as images_lib
from tests.estimator import frames


def noise(*shape):
  return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def pillow(*shape):
  return Image.fromarray(noise(*shape))


def _pixels(images):
  found = images_lib.read(images)
  assert isinstance(found, images_lib.Pixels)
  return found.images


@pytest.fixture
def paths(tmp_path):
  names = [tmp_path / "a" / "1.png", tmp_path / "b" / "2.png"]
  for name in names:
    name.parent.mkdir()
    pillow(5, 6, 3).save(name)
  return [str(name) for name in names]


@pytest.mark.parametrize("shape", [(2, 8, 9, 3), (2, 8, 9, 1)])
def test_arrays_are_images(shape):
  np.testing.assert_array_equal(_pixels(noise(*shape)), noise(*shape))


@pytest.mark.parametrize(
  "images",
  [
    noise(2, 8, 9),
    [*noise(2, 8, 9)],
    [*noise(2, 8, 9, 1)],
    iter(noise(2, 8, 9)),
    noise(2, 8, 9).view(np.ndarray)[:, :, :, None],
    [Image.fromarray(x) for x in noise(2, 8, 9)],
  ],
)
def test_grey_images_get_a_channel(images):
  np.testing.assert_array_equal(_pixels(images), noise(2, 8, 9)[..., None])


def test_pillow_images_of_several_modes_become_color():
  grey = pillow(4, 5)
  images = [pillow(4, 5, 3), grey, grey.convert("P"), grey.convert("RGBA")]
  found = _pixels(images)
  assert found.shape == (4, 4, 5, 3)
  np.testing.assert_array_equal(found[1], np.repeat(noise(4, 5, 1), 3, 2))


@pytest.mark.parametrize(
  ("images", "words"),
  [
    (np.zeros((3, 64)), r"table of features .* X\.reshape\(-1, height"),
    (np.zeros(64), r"shape \[64\]: give \[n"),
    (noise(8, 9, 3), r"looks like one image: .* X\[None\]"),
    (noise(2, 8, 9, 4), r"1 \(grey\) or 3 .* RGBA, give X\[\.\.\., :3\]"),
    (noise(2, 3, 8, 9), r"channels last: np\.moveaxis\(X, -3, -1\)"),
    (noise(0, 8, 9), "X is empty"),
    (noise(2, 0, 9, 3), "it has no pixel"),
    (
      noise(2, 8, 9) / 255,
      r"float64 and values from \S+ to 0\.\d+: .*255 \* X",
    ),
    (noise(2, 8, 9) / 1.0, r"values from \d+ to 2\d+: .*X\.round\(\)"),
    (noise(2, 8, 9) / 99 - 1, r"values from -1 to 1\S*: .* not normalized"),
    (noise(2, 8, 9) * np.nan, "values that are not finite"),
    (noise(2, 8, 9).astype(int), r"int64 .* X\.astype\(np\.uint8\)"),
    (noise(2, 8, 9).astype(np.uint16) * 99, "uint16 .* not normalized"),
    (noise(2, 8, 9) > 9, r"dtype bool: .*np\.uint8\(255\) \* X"),
    (noise(2, 8, 9).astype(complex), "complex128, which is no number"),
    ([noise(8, 9) / 255.0], r"X\[0\] has the dtype float64"),
    ([noise(8, 9), noise(8, 8)], r"X\[0\] is \[8, 9, 1\] and X\[1\] \[8, 8, 1"),
    ([noise(8, 9), noise(8, 9, 3)], r"different kinds: X\[0\] is \[8, 9, 1\]"),
    ([pillow(8, 9), pillow(8, 8)], "save them as files and give their paths"),
    ([noise(8, 9), pillow(8, 9)], r"X\[0\] is an array and X\[1\] is a Pillow"),
    (["a.png", noise(8, 9)], r"X\[0\] is a path and X\[1\] is an array"),
    (["a.png", None], r"X\[1\] is None, a missing value"),
    ([3, 4], r"X\[0\] has the shape|X\[0\] is an array with the shape \[\]"),
    ([], "X is empty"),
    (pillow(8, 9), "one Pillow image: give a list"),
    (3, "X is a int"),
    ({"path": ["a.png"]}, "X is a dict"),
    (np.array([["a.png"]]), r"array of <U5 with the shape \[1, 1\]"),
  ],
)
def test_what_is_no_image_is_refused(images, words):
  with pytest.raises(errors.InputError, match=words):
    images_lib.read(images)


@pytest.mark.parametrize(
  "convert", [list, np.array, tuple, lambda x: map(pathlib.Path, x)]
)
def test_paths_are_files(paths, convert):
  found = images_lib.read(convert(paths))
  assert found.paths == tuple(paths)
  assert images_lib.to_classify(convert(paths)) == paths


def test_relative_paths_begin_in_the_directory_of_the_data(paths, tmp_path):
  found = images_lib.read(["a/1.png", "b/2.png"], str(tmp_path))
  assert found.paths == tuple(paths)
  names = ["b/2.png"]
  assert images_lib.to_classify(names, str(tmp_path)) == paths[1:]


def test_files_that_are_missing_or_repeated_are_named(paths, tmp_path):
  with pytest.raises(errors.MissingFileError, match=r"1 file of 2.* X\[1\] ="):
    images_lib.read([paths[0], str(tmp_path / "c.png")])
  with pytest.raises(errors.MissingFileError, match=r"looks like an address"):
    images_lib.read(["https://example.org/a.png"])
  with pytest.raises(
    errors.InputError, match=r"X\[0\] and X\[2\] are the same"
  ):
    images_lib.read([*paths, str(tmp_path / "b" / ".." / "a" / "1.png")])


@pytest.mark.parametrize("column", ["path", "File", "image"])
def test_a_table_has_paths_labels_and_splits(paths, column):
  columns = {column: paths, "label": ["x", None], "split": [None, "test"]}
  found = images_lib.read(frames.Frame(columns))
  assert found.paths == tuple(paths)
  assert found.labels == ["x", None]
  assert found.splits == ("", "test")
  assert images_lib.to_classify(frames.Frame({column: paths})) == paths


def test_a_table_without_paths_is_refused():
  with pytest.raises(errors.InputError, match=r"without a column path .*'url'"):
    images_lib.read(frames.Frame({"url": ["a"]}))


def test_a_table_of_pandas_is_a_table(paths):
  pandas = pytest.importorskip("pandas")
  columns = {"path": paths, "label": ["x", None], "split": ["val", pandas.NA]}
  frame = pandas.DataFrame(columns, index=[7, 5])
  found = images_lib.read(frame)
  assert found.paths == tuple(paths)
  assert found.splits == ("val", "")
  assert images_lib.read(frame["path"]).paths == tuple(paths)


def test_a_folder_is_a_place_and_all_its_images(paths, tmp_path):
  for given in (str(tmp_path), tmp_path):
    assert images_lib.read(given) == images_lib.Place(str(tmp_path))
    assert images_lib.to_classify(given) == paths


def test_another_file_is_no_place(paths, tmp_path):
  with pytest.raises(errors.InputError, match="X is one file"):
    images_lib.read(paths[0])
  with pytest.raises(errors.MissingFileError, match="there is no such folder"):
    images_lib.read(tmp_path / "nowhere")


def test_images_to_classify_may_differ_in_size():
  images = [noise(8, 9), noise(7, 5, 3)]
  found = images_lib.to_classify(images)
  assert [x.shape for x in found] == [(8, 9), (7, 5, 3)]
  with pytest.raises(errors.InputError, match=r"X\[1\] has the dtype float64"):
    images_lib.to_classify([noise(8, 9), noise(8, 9) / 1.0])
