"""Votes on images, with the labelled images that carried them."""

import types

import numpy as np
import pytest

from paws_jax import errors
from paws_jax.data import dataset as dataset_lib
from paws_jax.evaluation import soft_nn
from paws_jax.report import votes as votes_lib

RNG = np.random.default_rng(0)
LABELS = np.array([0, 0, 1, 1, 2], np.int32)
BANK = types.SimpleNamespace(
  embeddings=RNG.normal(size=(5, 4)).astype(np.float32), labels=LABELS
)


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
  """What poses as images here has no pixels."""
  monkeypatch.setattr(
    votes_lib.similar_images,
    "shrink",
    lambda images: np.zeros((len(images), 256), np.float32),
  )


class Images:
  """Embeddings that pose as images; some of them cannot be read."""

  def __init__(self, rows, bad=()):
    self.rows, self.readable = rows, np.ones(len(rows), bool)
    self.readable[list(bad)] = False

  def __getitem__(self, places):
    return self.rows[places]


class SupportBank(types.SimpleNamespace):
  def __len__(self):
    return len(self.labels)


def run(part, *, name="unlabelled", seed=0):
  """A run whose encoder gives its input."""
  dataset = types.SimpleNamespace(num_classes=3, **{name: part})
  return types.SimpleNamespace(
    recipe=types.SimpleNamespace(seed=seed),
    step=7,
    params=None,
    batch_stats=None,
    experiment=types.SimpleNamespace(
      dataset=dataset,
      temperature=0.1,
      eval=types.SimpleNamespace(batch_size=512),
      embed=lambda params, state, images: images,
    ),
  )


def part(count, bad=()):
  rows = RNG.normal(size=(count, 4)).astype(np.float32)
  return dataset_lib.LabelledImages(
    Images(rows, bad), np.full(count, -1, np.int32), lambda i: f"<{i}>"
  )


@pytest.fixture
def support_bank():
  return SupportBank(**vars(BANK))


def test_images_are_judged_as_by_an_evaluation(support_bank, capsys):
  images = part(1500)
  judged = votes_lib.vote_on_part(
    run(images), support_bank, "unlabelled", most=9999
  )
  rows = images.images.rows
  expected = soft_nn.soft_nn_probabilities(
    rows, support_bank.embeddings, LABELS, num_classes=3, temperature=0.1
  )
  np.testing.assert_allclose(judged.probabilities, expected, rtol=1e-5)
  np.testing.assert_array_equal(judged.embeddings, rows)
  unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
  supports = support_bank.embeddings / np.linalg.norm(
    support_bank.embeddings, axis=1, keepdims=True
  )
  nearest = (unit @ supports.T).max(axis=1)
  np.testing.assert_allclose(judged.novelty, 1 - nearest, atol=1e-5)
  entropy = -(expected * np.log(expected)).sum(axis=1)
  np.testing.assert_allclose(judged.entropy, entropy, atol=1e-4)
  assert judged.title == "1,500 unlabelled images"
  assert judged.name(3) == "<3>"
  # Two chunks, of which a waiting reader is told.
  assert "unlabelled images: 1024 of 1500" in capsys.readouterr().out


def test_of_many_images_some_are_drawn_by_the_seed(support_bank):
  images = part(100, bad=range(0, 100, 2))
  judged, again, other = (
    votes_lib.vote_on_part(
      run(images, seed=s), support_bank, "unlabelled", most=30
    )
    for s in (1, 1, 2)
  )
  np.testing.assert_array_equal(judged.rows, again.rows)
  assert set(judged.rows) != set(other.rows)
  assert np.all(judged.rows % 2 == 1)
  assert len(judged) + judged.num_unreadable == 30
  np.testing.assert_array_equal(
    judged.embeddings, images.images.rows[judged.rows]
  )
  np.testing.assert_array_equal(
    judged.images(np.array([2, 0])), images.images.rows[judged.rows[[2, 0]]]
  )
  assert judged.title == (
    f"{len(judged)} unlabelled images sampled from 100 "
    f"({judged.num_unreadable} more cannot be read)"
  )


def test_a_part_without_images_that_can_be_read(support_bank):
  for images in (None, part(0), part(3, bad=range(3))):
    assert (
      votes_lib.vote_on_part(run(images), support_bank, "unlabelled", most=9)
      is None
    )


def test_labelled_images_are_judged_by_the_others(support_bank):
  rows = np.insert(support_bank.embeddings, 1, 0, axis=0)
  images = dataset_lib.LabelledImages(
    Images(rows, bad=[1]), np.insert(LABELS, 1, 0), str
  )
  judged = votes_lib.vote_on_labelled(
    run(images, name="labelled"), support_bank
  )
  np.testing.assert_array_equal(judged.rows, [0, 2, 3, 4, 5])
  np.testing.assert_array_equal(judged.labels, LABELS)
  # The only image of class 2 has nobody to vote for it.
  assert judged.probabilities[4, 2] == 0
  indices, shares = votes_lib.voters(
    judged, np.array([4, 0]), support_bank, temperature=0.1, most=9
  )
  assert indices.shape == (2, 4)
  assert 4 not in indices[0]
  assert 0 not in indices[1]
  votes = np.zeros((2, 3))
  np.add.at(votes, (np.arange(2)[:, None], LABELS[indices]), shares)
  np.testing.assert_allclose(votes, judged.probabilities[[4, 0]], atol=1e-5)
  assert np.all(np.diff(shares, axis=1) <= 0)
  assert judged.title.startswith(
    "5 labelled images, each classified by the others"
  )


def test_copies_do_not_vote_on_each_other(support_bank):
  rows = support_bank.embeddings
  rows[1] = rows[3] = rows[0]
  groups = np.array([0, 0, 2, 0, 4])
  images = dataset_lib.LabelledImages(Images(rows), LABELS, str, lambda: groups)
  judged = votes_lib.vote_on_labelled(
    run(images, name="labelled"), support_bank
  )
  # Those with votes are of classes 1 and 2.
  assert np.all(judged.probabilities[[0, 1, 3], 0] == 0)
  unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
  np.testing.assert_allclose(
    judged.novelty[0], 1 - (unit[[2, 4]] @ unit[0]).max(), atol=1e-5
  )
  indices, shares = votes_lib.voters(
    judged, np.array([3]), support_bank, temperature=0.1, most=9
  )
  assert sorted(indices[0]) == [2, 4]
  np.testing.assert_allclose(shares.sum(), 1, rtol=1e-5)


def test_one_image_and_its_copies_cannot_be_judged(support_bank):
  images = dataset_lib.LabelledImages(
    Images(support_bank.embeddings), LABELS, str, lambda: np.zeros(5, int)
  )
  trained = run(images, name="labelled")
  assert votes_lib.vote_on_labelled(trained, support_bank) is None


def test_a_single_labelled_image_cannot_be_judged():
  alone = SupportBank(embeddings=np.ones((1, 4)), labels=LABELS[:1])
  assert votes_lib.vote_on_labelled(run(None, name="labelled"), alone) is None


def test_voters_of_other_images_add_up_to_the_vote(support_bank):
  images = part(6)
  judged = votes_lib.vote_on_part(
    run(images), support_bank, "unlabelled", most=9
  )
  indices, shares = votes_lib.voters(
    judged, np.array([5]), support_bank, temperature=0.1, most=5
  )
  votes = np.bincount(LABELS[indices[0]], weights=shares[0], minlength=3)
  np.testing.assert_allclose(votes, judged.probabilities[5], atol=1e-5)
  few, _ = votes_lib.voters(
    judged, np.array([5]), support_bank, temperature=0.1, most=2
  )
  np.testing.assert_array_equal(few, indices[:, :2])


def test_embeddings_that_are_not_finite_name_the_image(support_bank):
  images = part(4)
  images.images.rows[2] = np.nan
  with pytest.raises(
    errors.NonFiniteError,
    match=r"1 unlabelled images .* first is <2>: .*step 7",
  ):
    votes_lib.vote_on_part(run(images), support_bank, "unlabelled", most=9)
