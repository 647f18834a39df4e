"""Near duplicates and outliers: found, counted, and each pair once."""

import io

import numpy as np
import pytest
from PIL import Image

from paws_jax.classifier import similar_images


def photographs(count, seed=0, side=40):
  """uint8 [n, side, side, 3], smooth and all different."""
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 256, (count, 6, 6, 3), np.uint8)
  return np.stack(
    [np.asarray(Image.fromarray(c).resize((side, side))) for c in coarse]
  )


def jpeg(image):
  file = io.BytesIO()
  Image.fromarray(image).save(file, "JPEG", quality=60)
  return np.asarray(Image.open(file))


def as_set(name, images, embeddings, labels=None):
  return similar_images.ImageSet(
    name=name,
    embeddings=embeddings,
    pictures=similar_images.shrink(images),
    labels=np.full(len(images), -1) if labels is None else np.asarray(labels),
  )


def vectors(count, seed=1):
  return np.random.default_rng(seed).normal(size=(count, 8))


@pytest.fixture
def sets():
  """Test image 2 is labelled image 1 again; unlabelled 0 and 3 are alike."""
  labelled, unlabelled, test = (photographs(4, seed) for seed in range(3))
  test[2] = jpeg(labelled[1])
  unlabelled[3] = unlabelled[0] // 2
  a, b, c = (vectors(4, seed) for seed in range(3))
  c[2] = 3 * a[1] + 0.01
  b[3] = b[0]
  return [
    as_set("labelled", labelled, a, [0, 0, 1, 1]),
    as_set("unlabelled", unlabelled, b),
    as_set("test", test, c, [0, 1, 1, 0]),
  ]


@pytest.mark.parametrize("block", [1, 3, 512])
def test_near_duplicates_are_found_within_and_between(sets, block, monkeypatch):
  monkeypatch.setattr(similar_images, "_BLOCK", block)
  kinds = similar_images.compare(sets, most=5).kinds
  found = {
    (kind.first, kind.second): [(p.first, p.second) for p in kind.pairs]
    for kind in kinds
  }
  assert found == {(0, 2): [(1, 2)], (1, 1): [(0, 3)]}
  between, within = kinds
  assert (between.count, between.conflicts) == (1, 1)
  assert between.pairs[0].conflict
  assert between.pairs[0].cosine > 0.99
  assert 0.99 < between.pairs[0].correlation < 1
  assert (within.count, within.conflicts) == (1, 0)


def test_neither_embeddings_nor_pictures_are_enough(sets):
  labelled, unlabelled, _ = sets
  images = photographs(4, 9)
  same_vector = as_set("test", images, labelled.embeddings)
  same_picture = similar_images.ImageSet(
    "val", vectors(4, 7), unlabelled.pictures, unlabelled.labels
  )
  kinds = similar_images.compare(
    [labelled, same_vector, same_picture], most=5
  ).kinds
  assert kinds == ()


@pytest.mark.parametrize("block", [7, 512])
def test_all_are_counted_and_few_returned(block, monkeypatch):
  monkeypatch.setattr(similar_images, "_BLOCK", block)
  images = np.repeat(photographs(1), 30, axis=0)
  labels = [0] * 29 + [1]
  one = as_set("labelled", images, np.repeat(vectors(1), 30, axis=0), labels)
  (kind,) = similar_images.compare([one], most=4).kinds
  assert kind.count == 30 * 29 // 2
  assert kind.conflicts == 29
  assert len(kind.pairs) == 4
  # Those with different labels come first.
  assert all(pair.conflict and pair.second == 29 for pair in kind.pairs)


def test_images_of_one_color_are_no_duplicates():
  images = np.full((3, 40, 40, 3), 200, np.uint8)
  one = as_set("labelled", images, np.ones((3, 8)))
  assert similar_images.compare([one], most=4).kinds == ()
  assert not one.pictures.any()


@pytest.mark.parametrize("block", [5, 512])
def test_outliers_are_far_from_all_others(block, monkeypatch):
  monkeypatch.setattr(similar_images, "_BLOCK", block)
  embeddings = np.random.default_rng(0).normal(0, 0.1, (20, 8))
  embeddings[:, 0] += 1
  embeddings[7] = -embeddings[0]
  first, second = embeddings[:10], embeddings[10:]
  images = photographs(20)
  similarity = similar_images.compare(
    [
      as_set("labelled", images[:10], first),
      as_set("test", images[10:], second),
    ],
    most=4,
  ).similarity
  assert [len(values) for values in similarity] == [10, 10]
  values = np.concatenate(similarity)
  assert values.argmin() == 7
  directions = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
  cosines = np.sort(directions @ directions.T, axis=1)[:, -6:-1]
  np.testing.assert_allclose(values, cosines.mean(axis=1), rtol=1e-5)


def test_two_images_are_compared():
  one = as_set("labelled", photographs(2), vectors(2))
  (values,) = similar_images.compare([one], most=4).similarity
  assert values[0] == values[1]
  single = as_set("labelled", photographs(1), vectors(1))
  assert similar_images.compare([single], most=4).kinds == ()
