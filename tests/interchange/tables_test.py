"""Tables of predictions, whatever kind of file they are."""

import pytest
from PIL import Image

from paws_jax import errors
from paws_jax.interchange import tables
from paws_jax.tasks import predict
from tests import random_classifier

NAMES = ("a.png", 'quote",\\x41.png', "no utf-8 \udcff.png")


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
  """Images with odd names, and their predictions as CSV and Parquet."""
  pytest.importorskip("pyarrow")
  root = tmp_path_factory.mktemp("tables")
  (root / "photos").mkdir()
  for name in NAMES:
    Image.new("L", (12, 9)).save(root / "photos" / name)
  classifier = random_classifier.make()
  found = predict.find_images.find("--images", str(root / "photos"))
  for suffix in ("csv", "parquet"):
    inputs = predict.PredictInputs(
      make=lambda: classifier,
      images=found,
      added={},
      output=root / f"p.{suffix}",
    )
    predict.run(inputs)
  return root


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_rows_name_the_files(predicted, suffix):
  rows = tables.read(predicted / f"p.{suffix}", images_dir=None)
  assert sorted(row.name for row in rows) == sorted(NAMES)
  for row in rows:
    assert row.file == str(predicted / "photos" / row.name)
    assert row.predicted_class in random_classifier.CLASSES
    assert 1 / 3 <= row.probability <= 1
    assert row.number("entropy") >= 0


def test_a_damaged_parquet_file_is_named(predicted, tmp_path):
  path = tmp_path / "p.parquet"
  path.write_bytes((predicted / "p.parquet").read_bytes()[:-20])
  with pytest.raises(errors.InputError, match=r"p\.parquet is no Parquet file"):
    tables.read(path, images_dir=None)
