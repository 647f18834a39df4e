"""What the pixels alone achieve, of images in memory and on disk."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from paws_jax import config as config_lib
from paws_jax.data import load_dataset
from paws_jax.data.labels import copies
from paws_jax.data.sources import arrays as arrays_lib
from paws_jax.evaluation import pixel_baselines
from paws_jax.evaluation import soft_nn

pytestmark = pytest.mark.unoptimized

COLORS = {"blue": (30, 40, 200), "green": (40, 190, 60), "red": (210, 30, 30)}
TITLES = ["soft NN", "1-NN", "logistic regression"]


def picture(name, seed, side=70):
  """A noisy square of a color."""
  noise = np.random.default_rng(seed).integers(-25, 25, (side, side + 9, 3))
  return (np.array(COLORS[name]) + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Folders "labelled" and "test", and a table of the same images."""
  root = tmp_path_factory.mktemp("images")
  lines = ["path,label,split"]
  for part, count in (("labelled", 3), ("test", 4)):
    for name in COLORS:
      (root / part / name).mkdir(parents=True)
      for k in range(count):
        path = root / part / name / f"{k}.png"
        Image.fromarray(picture(name, len(lines))).save(path)
        split = "test" if part == "test" else ""
        lines.append(f"{path.relative_to(root)},{name},{split}")
  (root / "table.csv").write_text("\n".join(lines))
  return root


def on_disk(root, **fields):
  config = config_lib.base()
  config.data.source = "folder"
  config.data.pipeline = "host"
  flat = {"data.dir": str(root / "labelled"), "views.large.size": 48}
  flat |= {"views.eval_resize": 48, "data.labels_per_class": 0}
  flat |= {f"data.{name}": value for name, value in fields.items()}
  config.update_from_flattened_dict(flat)
  recipe = config_lib.build(config)
  return load_dataset.load(recipe.data, recipe.views)


def measured(dataset, part):
  found = list(pixel_baselines.outcomes(dataset, part, temperature=0.1, seed=0))
  assert [o.title for o in found] == [f"{t} on raw pixels" for t in TITLES]
  assert {o.part for o in found} == {part}
  return found


@pytest.mark.parametrize("listing", ["folders", "table"])
@pytest.mark.parametrize(("part", "count"), [("test", 12), ("labelled", 9)])
def test_images_on_disk_are_classified_by_their_colors(
  folder, listing, part, count
):
  if listing == "folders":
    dataset = on_disk(folder, test_dir=str(folder / "test"))
  else:
    table = str(folder / "table.csv")
    dataset = on_disk(folder, dir=str(folder), manifest=table)
  for outcome in measured(dataset, part):
    assert len(outcome.labels) == count
    assert outcome.top(1) == 1.0, outcome.title


def test_a_labelled_image_that_cannot_be_read_does_not_vote(folder, tmp_path):
  for source in sorted((folder / "labelled").rglob("*.png")):
    path = tmp_path / "labelled" / source.relative_to(folder / "labelled")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(source.read_bytes())
  (tmp_path / "labelled" / "red" / "0.png").write_bytes(b"no image")
  dataset = on_disk(tmp_path, on_bad_image="skip")
  # The embedding finds out which images can be read.
  dataset.labelled.images[:]
  assert len(measured(dataset, "labelled")[0].labels) == 8


def digits(per_class):
  config = config_lib.base()
  config.data.source, config.data.pipeline = "digits", "memory"
  config.data.labels_per_class = per_class
  config.views.mean, config.views.std = (0.3,), (0.4,)
  config.views.large.size, config.views.eval_resize = 8, 8
  recipe = config_lib.build(config)
  arrays = arrays_lib.load("digits", directory="", tfds_name="")
  return load_dataset.load(recipe.data, recipe.views, arrays=arrays)


def test_small_images_in_memory_are_compared_as_they_are():
  dataset = digits(per_class=4)
  voted, nearest, logistic = measured(dataset, "test")
  queries, supports = (
    part.images.reshape(len(part), -1) / np.float32(255)
    for part in (dataset.test, dataset.labelled)
  )
  accuracy = soft_nn.soft_nn_accuracy(
    queries,
    dataset.test.labels,
    supports,
    dataset.labelled.labels,
    num_classes=10,
    temperature=0.1,
  )
  assert {f"top{k}": voted.top(k) for k in (1, 5)} == accuracy
  cosines = queries @ (supports / np.linalg.norm(supports, axis=1)[:, None]).T
  expected = dataset.labelled.labels[cosines.argmax(axis=1)]
  assert np.mean(nearest.ranks[:, 0] == expected) > 0.99
  # The labels of digits are those of the pixels.
  assert all(0.6 < o.top(1) < 0.95 for o in (voted, nearest, logistic))


def test_no_labelled_image_judges_itself():
  # Of pure noise, leave-one-out is no better than chance.
  dataset = digits(per_class=4)
  noise = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8)
  labelled = dataclasses.replace(dataset.labelled, images=noise)
  dataset = dataclasses.replace(dataset, labelled=labelled)
  for outcome in measured(dataset, "labelled"):
    assert outcome.top(1) < 0.4, outcome.title


def test_no_labelled_image_is_judged_by_its_copy():
  dataset = digits(per_class=4)
  noise = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8)
  order = np.argsort(dataset.labelled.labels, kind="stable")
  noise[order[1::4]] = noise[order[::4]]
  labelled = dataclasses.replace(
    dataset.labelled, images=noise, find_copies=lambda: copies.of_arrays(noise)
  )
  dataset = dataclasses.replace(dataset, labelled=labelled)
  for outcome in measured(dataset, "labelled"):
    assert outcome.top(1) < 0.4, outcome.title


@pytest.mark.parametrize("part", ["test", "labelled"])
def test_of_many_images_a_fixed_number_is_read(monkeypatch, folder, part):
  monkeypatch.setattr(pixel_baselines, "MOST_IMAGES", 6)
  monkeypatch.setattr(pixel_baselines, "_CHUNK_SIZE", 4)
  dataset = on_disk(folder, test_dir=str(folder / "test"))
  read = []
  original = type(dataset.test.images).__getitem__

  def counted(self, places):
    read.append(len(places))
    return original(self, places)

  monkeypatch.setattr(type(dataset.test.images), "__getitem__", counted)
  first, again = measured(dataset, part), measured(dataset, part)
  assert len(first[0].labels) == 6
  np.testing.assert_array_equal(first[0].labels, again[0].labels)
  assert max(read) == 4
  assert sum(read) == (2 * 12 if part == "test" else 2 * 6)


@pytest.mark.parametrize(
  ("shape", "side", "expected"),
  [
    ((96, 96), 32, (32, 32)),
    ((45, 90), 32, (16, 32)),
    ((28, 28), 16, (16, 16)),
    ((8, 8), 16, (8, 8)),
    ((1, 5000), 32, (1, 32)),
  ],
)
def test_reducing_keeps_the_mean(shape, side, expected):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (3, *shape, 3), np.uint8)
  small = pixel_baselines.reduce(images, side)
  assert small.shape == (3, *expected, 3)
  assert small.dtype == np.float32
  np.testing.assert_allclose(
    small.mean(axis=(1, 2)), images.mean(axis=(1, 2)) / 255, atol=1e-5
  )


def test_reducing_by_an_integer_is_the_mean_of_blocks():
  images = np.random.default_rng(0).integers(0, 256, (2, 96, 63, 1), np.uint8)
  blocks = images.reshape(2, 32, 3, 21, 3, 1).mean(axis=(2, 4)) / 255
  small = pixel_baselines.reduce(images, 32)
  np.testing.assert_allclose(small, blocks, atol=1e-5)
