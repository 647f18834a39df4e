import os

import numpy as np
import pytest

from paws_jax.data.sources import arrays


def load(directory, tfds_name=""):
  return arrays.load("tfds", directory=str(directory), tfds_name=tfds_name)


def prepare(
  directory,
  *,
  splits=("train", "test"),
  with_ids=True,
  with_labels=True,
  odd_width=False,
):
  """Builds 12 images a split, stored in another order than their ids."""
  import tensorflow_datasets as tfds

  features = {"image": tfds.features.Image(shape=(4, None, 3))}
  if not odd_width:
    features["image"] = tfds.features.Image(shape=(4, 6, 3))
  if with_labels:
    features["label"] = tfds.features.ClassLabel(names=["red", "green", "blue"])
  if with_ids:
    features["id"] = tfds.features.Text()

  class TinyColours(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
      return tfds.core.DatasetInfo(
        builder=self, features=tfds.features.FeaturesDict(features)
      )

    def _split_generators(self, dl_manager):
      return {split: self._generate_examples(split) for split in splits}

    def _generate_examples(self, split):
      for i in range(12):
        width = 7 if odd_width and i == 3 else 6
        row = {
          "image": np.full((4, width, 3), i, np.uint8),
          "label": i % 3,
          "id": f"{split}_{i:05d}",
        }
        yield i, {key: row[key] for key in features}

  builder = TinyColours(data_dir=str(directory))
  builder.download_and_prepare()
  return os.fspath(builder.data_path)


@pytest.mark.slow
def test_tfds_opens_a_prepared_directory_in_the_order_of_ids(tmp_path):
  colours = load(prepare(tmp_path))
  assert colours.name == "tiny_colours/1.0.0"
  assert colours.class_names == ("red", "green", "blue")
  assert colours.train_images.shape == (12, 4, 6, 3)
  assert colours.train_images[:, 0, 0, 0].tolist() == list(range(12))
  assert colours.train_labels.tolist() == [0, 1, 2] * 4
  assert colours.test_images[:, 3, 5, 2].tolist() == list(range(12))
  by_name = load(tmp_path, "tiny_colours")
  assert by_name.fingerprint() == colours.fingerprint()


@pytest.mark.slow
def test_tfds_without_ids_keeps_labels_with_their_images(tmp_path):
  path = prepare(tmp_path, with_ids=False, splits=("train", "validation"))
  colours = load(path, "tiny_colours")
  values = colours.train_images[:, 0, 0, 0]
  assert sorted(values.tolist()) == list(range(12))
  assert np.array_equal(colours.train_labels, values % 3)
  assert len(colours.test_labels) == 12


@pytest.mark.slow
@pytest.mark.parametrize(
  ("how", "message"),
  [
    ({"odd_width": True}, r"\(4, [67], 3\).*same shape"),
    ({"splits": ("train",)}, r"splits \['train'\], but needs train, and test"),
    ({"splits": ("test",)}, r"splits \['test'\], but needs train, and test"),
    ({"with_labels": False}, "needs 'label' as tfds.features.ClassLabel"),
  ],
)
def test_tfds_refuses_what_is_no_classification_set(tmp_path, how, message):
  path = prepare(tmp_path, **how)
  with pytest.raises(ValueError, match=message):
    load(path)


@pytest.mark.slow
def test_tfds_refuses_a_name_that_is_not_what_the_directory_holds(tmp_path):
  path = prepare(tmp_path)
  for name in ("cifar10", "tiny_colours:2.0.0", "tiny_colours/x:1.0.0"):
    with pytest.raises(
      ValueError, match=rf"{name}', but .* 'tiny_colours/1\.0\.0'"
    ):
      load(path, name)
  load(path, "tiny_colours:1.*.*")


@pytest.mark.slow
def test_tfds_says_what_to_run_when_nothing_is_prepared(tmp_path):
  with pytest.raises(FileNotFoundError) as caught:
    load(tmp_path, "cifar10")
  command = (
    'python -c "import tensorflow_datasets as tfds; '
    f"tfds.builder('cifar10/3.0.2', data_dir={str(tmp_path)!r})"
    '.download_and_prepare()"'
  )
  assert command in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("cifar11", "'cifar11' is unknown to TFDS.*'cifar10'"),
    ("cifar10:9.9.9", "'cifar10:9.9.9' is unknown .* only: 3.0.2"),
    ("", "data.tfds_name = '' .* name no data set"),
    ("huggingface:mnist", "'huggingface:mnist' .* name no data set"),
  ],
)
def test_tfds_refuses_unknown_names(tmp_path, name, message):
  with pytest.raises(ValueError, match=message):
    load(tmp_path, name)


@pytest.mark.slow
def test_tfds_reads_cifar10(tmp_path):
  import tensorflow_datasets as tfds

  with tfds.testing.mock_data(num_examples=20):
    cifar10 = load(tmp_path, "cifar10")
  assert cifar10.name == "cifar10/3.0.2"
  assert cifar10.train_images.shape == (20, 32, 32, 3)
  assert cifar10.test_labels.shape == (20,)
  # The mock knows only their number; the names come with prepared data.
  assert cifar10.class_names == tuple("0123456789")
