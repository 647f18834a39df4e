import concurrent.futures
import functools
import hashlib
import io
import os
import pathlib
import shutil
import struct

import numpy as np
import pytest

from paws_jax.data.sources import record_index
from paws_jax.data.sources import tfds_records

NUM_TRAIN, NUM_TEST = 13, 5


@functools.cache
def jpeg(number):
  """A JPEG file with a colour and a size of its own."""
  from PIL import Image

  file = io.BytesIO()
  shape = (8 + number, 9, 3)
  Image.fromarray(np.full(shape, 10 * number, np.uint8)).save(file, "JPEG")
  return file.getvalue()


def prepare(
  directory,
  file_format,
  *,
  splits=("train", "test"),
  text="file_name",
  unlabelled=(),
  dtype=np.uint8,
  shift=0,
):
  """Builds a data set of JPEG files; returns its directory.

  Image i of `train` is jpeg(i) of class (i + shift) % 3, called image_{i}.jpg;
  those of other splits count from 20. The order on disk is another.
  """
  import tensorflow_datasets as tfds

  image = tfds.features.Image(encoding_format="jpeg")
  if dtype != np.uint8:
    image = tfds.features.Image(shape=(None, None, 1), dtype=dtype)
  features = {
    "image": image,
    "label": tfds.features.ClassLabel(names=["red", "green", "blue"]),
  }
  if text:
    features[text] = tfds.features.Text()

  class TinyPhotos(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.2.0")

    def _info(self):
      return tfds.core.DatasetInfo(
        builder=self, features=tfds.features.FeaturesDict(features)
      )

    def _split_generators(self, dl_manager):
      return {split: self._generate_examples(split) for split in splits}

    def _generate_examples(self, split):
      first, num = (0, NUM_TRAIN) if split == "train" else (20, NUM_TEST)
      for i in range(first, first + num):
        image = io.BytesIO(jpeg(i))
        if dtype != np.uint8:
          image = np.zeros((2, 2, 1), dtype)
        row = {
          "image": image,
          "label": -1 if split in unlabelled else (i + shift) % 3,
          text: f"image_{i:03}.jpg",
        }
        yield i, {key: row[key] for key in features}

  builder = TinyPhotos(data_dir=str(directory), file_format=file_format)
  config = tfds.download.DownloadConfig(num_shards=3)
  builder.download_and_prepare(download_config=config)
  return os.fspath(builder.data_path)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """Directory of the data set in each format; altered in copies only."""
  return functools.cache(
    lambda file_format: prepare(
      tmp_path_factory.mktemp(file_format), file_format
    )
  )


@pytest.fixture
def copy(prepared, tmp_path):
  """A copy of the data set as TFRECORD without an index."""
  place = tmp_path / "tiny_photos" / "1.2.0"
  shutil.copytree(prepared("tfrecord"), place)
  for path in place.glob("*.npz"):
    path.unlink()
  return place


@pytest.fixture
def index_dir(tmp_path):
  return str(tmp_path / "indices")


def number_of(key):
  return int(key.removeprefix("image_").removesuffix(".jpg"))


pytestmark = pytest.mark.slow


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record", "parquet"])
def test_images_labels_and_names_belong_together(
  prepared, file_format, index_dir
):
  place = prepared(file_format)
  # Once by reading all, once with the index.
  for _ in range(2):
    photos = tfds_records.load(place, "", index_dir=index_dir)
    assert photos.name == "tiny_photos/1.2.0"
    assert photos.class_names == ("red", "green", "blue")
    assert photos.val is None
    for part, first, num in (
      (photos.train, 0, NUM_TRAIN),
      (photos.test, 20, NUM_TEST),
    ):
      reader = part.images
      numbers = [number_of(reader.key(i)) for i in range(len(reader))]
      assert sorted(numbers) == list(range(first, first + num))
      for i, number in enumerate(numbers):
        assert reader.read(i) == jpeg(number)
        assert reader.size(i) == len(jpeg(number))
        assert part.labels[i] == number % 3
    assert photos.train.images.name(0).startswith("tiny_photos train: image_")
  assert len(os.listdir(index_dir)) == 2


def test_formats_have_the_same_rows_and_fingerprint(prepared, index_dir):
  prints = {
    tfds_records.load(prepared(f), "", index_dir=index_dir).fingerprint()
    for f in ("tfrecord", "array_record", "parquet")
  }
  assert len(prints) == 1


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_threads_read_what_one_reads(prepared, file_format, index_dir):
  photos = tfds_records.load(prepared(file_format), "", index_dir=index_dir)
  reader = photos.train.images
  rows = np.random.default_rng(0).integers(0, NUM_TRAIN, 4000).tolist()
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    got = list(pool.map(reader.read, rows))
  assert got == [jpeg(number_of(reader.key(row))) for row in rows]


def test_rows_stand_in_the_order_of_ids_as_they_do_in_memory(tmp_path):
  place = prepare(tmp_path, "tfrecord", text="id")
  reader = tfds_records.load(place, "").train.images
  assert [number_of(reader.key(i)) for i in range(NUM_TRAIN)] == list(
    range(NUM_TRAIN)
  )
  assert reader.read(4) == jpeg(4)


def test_images_without_names_are_numbered(tmp_path):
  place = prepare(tmp_path, "array_record", text="")
  reader = tfds_records.load(place, "").train.images
  assert reader.name(3) == "tiny_photos train: #3"


def test_the_index_lies_beside_the_data_and_is_read(copy, capsys, monkeypatch):
  first = tfds_records.load(str(copy), "").fingerprint()
  told = capsys.readouterr().out
  assert "indexing tiny_photos/1.2.0 train, once: 13 records" in told
  assert f"saved the index to {copy}/paws_jax.train.index.npz" in told
  assert (copy / "paws_jax.test.index.npz").exists()
  monkeypatch.setattr(record_index, "build", None)
  # By name, too, and TFDS does not mind the new files.
  again = tfds_records.load(str(copy.parent.parent), "tiny_photos")
  assert again.fingerprint() == first
  assert capsys.readouterr().out == ""


@pytest.mark.parametrize("damage", ["empty", "cut", "flip", "other"])
def test_an_index_that_is_damaged_or_of_other_files_is_rebuilt(
  copy, damage, capsys
):
  first = tfds_records.load(str(copy), "").fingerprint()
  path = copy / "paws_jax.train.index.npz"
  content = bytearray(path.read_bytes())
  if damage == "empty":
    content = b""
  elif damage == "cut":
    content = content[:-100]
  elif damage == "flip":
    content[content.index(b"image_0") + 8] ^= 1
  else:
    content = (copy / "paws_jax.test.index.npz").read_bytes()
  path.write_bytes(content)
  capsys.readouterr()
  assert tfds_records.load(str(copy), "").fingerprint() == first
  told = capsys.readouterr().out
  assert told.count("indexing tiny_photos/1.2.0 train") == 1
  assert "indexing tiny_photos/1.2.0 test" not in told


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_data_prepared_anew_at_equal_size_are_indexed_anew(
  tmp_path, file_format
):
  place = pathlib.Path(prepare(tmp_path / "one", file_format))
  before = tfds_records.load(str(place), "").train
  other = pathlib.Path(prepare(tmp_path / "two", file_format, shift=1))
  for path in other.iterdir():
    assert path.name.endswith("json") or (
      path.stat().st_size == (place / path.name).stat().st_size
    )
    shutil.copyfile(path, place / path.name)
  after = tfds_records.load(str(place), "").train
  assert after.images.index.keys == before.images.index.keys
  np.testing.assert_array_equal(after.labels, (before.labels + 1) % 3)


def test_where_the_data_cannot_be_written_the_index_lies_in_the_cache(
  copy, monkeypatch, tmp_path, capsys
):
  monkeypatch.setenv("HOME", str(tmp_path / "home"))
  save = record_index.save

  def save_elsewhere(path, *rest):
    if path.startswith(str(copy)):
      raise PermissionError(path)
    save(path, *rest)

  monkeypatch.setattr(record_index, "save", save_elsewhere)
  first = tfds_records.load(str(copy), "").fingerprint()
  kept = list((tmp_path / "home/.cache/paws_jax").iterdir())
  digest = hashlib.sha256(os.fsencode(os.path.realpath(copy))).hexdigest()[:16]
  assert sorted(path.name for path in kept) == [
    f"{digest}.test.index.npz",
    f"{digest}.train.index.npz",
  ]
  capsys.readouterr()
  assert tfds_records.load(str(copy), "").fingerprint() == first
  assert capsys.readouterr().out == ""


def test_without_a_place_for_the_index_it_is_said(copy, capsys):
  (copy.parent / "file").touch()
  place = str(copy.parent / "file" / "indices")
  photos = tfds_records.load(str(copy), "", index_dir=place)
  assert len(photos.train.images) == NUM_TRAIN
  assert f"could not save the index to {place}" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("splits", "unlabelled", "test", "val"),
  [
    (("train",), (), None, None),
    (("train", "validation"), (), "validation", None),
    (("train", "validation", "test"), (), "test", "validation"),
    (("train", "validation", "test"), ("test",), "validation", None),
    (("train", "test"), ("test",), None, None),
  ],
)
def test_which_split_is_for_testing(tmp_path, splits, unlabelled, test, val):
  place = prepare(tmp_path, "tfrecord", splits=splits, unlabelled=unlabelled)
  photos = tfds_records.load(place, "")
  for part, split in ((photos.test, test), (photos.val, val)):
    if split is None:
      assert part is None
    else:
      assert part.images.name(0).startswith(f"tiny_photos {split}: image_02")
      assert len(part.labels) == NUM_TEST


def shard_of(copy, number=1):
  return copy / f"tiny_photos-train.tfrecord-{number:05}-of-00003"


@pytest.mark.parametrize("cut", [1, 5, 300])
def test_a_file_that_was_cut_is_named(copy, cut):
  content = shard_of(copy).read_bytes()
  shard_of(copy).write_bytes(content[:-cut])
  with pytest.raises(ValueError, match=r"00001-of-00003 has .* is longer"):
    tfds_records.load(str(copy), "")


def test_a_file_that_ends_within_a_header_is_named(copy):
  with shard_of(copy).open("ab") as file:
    file.write(b"\0" * 7)
  with pytest.raises(ValueError, match=r"00001-of-00003 has .* is longer"):
    tfds_records.load(str(copy), "")


def test_other_contents_are_refused(copy):
  shard = shard_of(copy)
  content = shard.read_bytes()
  frame = struct.pack("<QI", 3, 0)
  shard.write_bytes(frame + b"\xff\xff\xff" + bytes(4))
  with pytest.raises(
    ValueError, match=r"train: .*0 of part 1 is not a tf.train"
  ):
    tfds_records.load(str(copy), "")
  shard.write_bytes(struct.pack("<QI", 0, 0) + bytes(4))
  with pytest.raises(ValueError, match="record 0 of part 1 has no encoded im"):
    tfds_records.load(str(copy), "")
  shard.write_bytes(b"")
  with pytest.raises(ValueError, match=r"\d+ records, but 13 by its"):
    tfds_records.load(str(copy), "")
  shard.write_bytes(content)
  assert len(tfds_records.load(str(copy), "").train.labels) == NUM_TRAIN


def test_a_record_without_a_label_is_refused():
  import tensorflow as tf

  example = tf.train.Example()
  example.features.feature["image"].bytes_list.value.append(b"pixels")
  chunk = [(0, example.SerializeToString())]
  with pytest.raises(ValueError, match="set: record 0 of part 0 has no label"):
    record_index.build(
      [lambda: chunk], name="set", num_bytes=[1], num_records=1
    )


def test_a_missing_file_is_named(copy):
  shard_of(copy, 2).unlink()
  with pytest.raises(
    FileNotFoundError, match=r"1 of 3 files .*00002-of-00003'"
  ):
    tfds_records.load(str(copy), "")


def test_reading_past_a_file_that_shrank_is_an_error(copy):
  reader = tfds_records.load(str(copy), "").train.images
  for number in range(3):
    os.truncate(shard_of(copy, number), 10)
  with pytest.raises(
    OSError, match=r"tiny_photos train: image_\d+.jpg: .* ends"
  ):
    reader.read(0)


def test_a_source_that_fails_names_the_image():
  index = record_index.RecordIndex(
    **{
      name: np.zeros(1, np.int64)
      for name in ("chunk", "record", "start", "size", "labels")
    },
    keys=("a.jpg",),
  )
  reader = tfds_records.DataSourceImages(
    title="set train", index=index, source=[]
  )
  with pytest.raises(OSError, match=r"set train: a\.jpg cannot be read: list"):
    reader.read(0)


def test_a_format_without_random_access_comes_with_a_command(copy):
  path = copy / "dataset_info.json"
  text = path.read_text()
  assert '"tfrecord"' in text
  path.write_text(
    text.replace('"fileFormat": "tfrecord"', '"fileFormat": "riegeli"')
  )
  for split in ("train", "test"):
    for shard in copy.glob(f"tiny_photos-{split}.tfrecord*"):
      shard.rename(str(shard).replace("tfrecord", "riegeli"))
  with pytest.raises(
    ValueError, match=r"prepared as riegeli, .*:\n  tfds convert"
  ):
    tfds_records.load(str(copy), "")


def test_buckets_are_refused(copy, monkeypatch):
  import tensorflow_datasets as tfds

  monkeypatch.setattr(
    tfds.core.SplitInfo,
    "filepaths",
    property(lambda self: ["gs://b/c"]),
  )
  with pytest.raises(
    ValueError, match=r"lies in 'gs://b': .* mount the bucket"
  ):
    tfds_records.load(str(copy), "")


def test_what_is_not_for_classification_is_refused(tmp_path):
  place = prepare(tmp_path, "tfrecord", splits=("test",))
  with pytest.raises(ValueError, match=r"splits \['test'\], but needs train:"):
    tfds_records.load(place, "")
  place = prepare(tmp_path / "float", "tfrecord", dtype=np.float32)
  with pytest.raises(ValueError, match="images of float32, but needs uint8"):
    tfds_records.load(place, "")


def test_nothing_prepared_says_what_to_run(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"download_and_prepare\(\)"):
    tfds_records.load(str(tmp_path), "cifar10")


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("cifar11", "'cifar11' is unknown to TFDS.*'cifar10'"),
    ("cifar10:9.9.9", "'cifar10:9.9.9' is .* at version 9.9.9, only: 3.0.2"),
    ("cifar10/x", "'cifar10' in other .* TFDS: BuilderConfig x not fou"),
    ("", "data.tfds_name = '' .* name no data set"),
  ],
)
def test_unknown_names_and_versions_are_refused(tmp_path, name, message):
  with pytest.raises(ValueError, match=message):
    tfds_records.load(str(tmp_path), name)


def test_an_image_is_found_behind_a_text_that_begins_alike():
  import tensorflow as tf

  image = bytes(range(200))
  text, photo = tf.train.Example(), tf.train.Example()
  text.features.feature["file_name"].bytes_list.value.append(image[:150])
  photo.features.feature["image"].bytes_list.value.append(image)
  photo.features.feature["label"].int64_list.value.append(2)
  # One message after another is their union, with the text first.
  record = text.SerializeToString() + photo.SerializeToString()
  index = record_index.build(
    [lambda: [(7, record)]], name="set", num_bytes=[1], num_records=1
  )
  assert index.keys == (image[:150].decode("utf-8", "surrogateescape"),)
  assert index.start.tolist() == [7 + record.index(image)]
  assert index.size.tolist() == [200]
