"""What a report says of near duplicates and outliers."""

import numpy as np
import pytest

from paws_jax.report import page as page_lib
from paws_jax.report import similar_sections
from paws_jax.report import votes
from tests.classifier import similar_images_test
from tests.report import page_test
from tests.report import sections_test

CLASSES = ("cat", "dog")


def part(kind, images, embeddings, labels):
  return votes.VotedImages(
    part=sections_test.dataset.LabelledImages(
      images, np.asarray(labels), lambda i: f"{kind} {i}.png"
    ),
    kind=f"{kind} images",
    rows=np.arange(len(images)),
    embeddings=embeddings,
    probabilities=np.full((len(images), 2), 0.5),
    novelty=np.zeros(len(images)),
    pictures=similar_sections.similar_images.shrink(images),
  )


def compared(*, test_is_labelled=False, wrong_label=False, count=12, most=99):
  """12 labelled, unlabelled and test images each."""
  images = [similar_images_test.photographs(count, seed) for seed in range(3)]
  embeddings = [similar_images_test.vectors(count, seed) for seed in range(3)]
  labels = np.arange(count) % 2
  if test_is_labelled:
    images[2][5], embeddings[2][5] = images[0][4], embeddings[0][4]
  if wrong_label:
    images[0][3], embeddings[0][3] = images[0][2], embeddings[0][2]
  bank = sections_test.SupportBank(
    embeddings=embeddings[0],
    labels=labels,
    names=tuple(f"labelled {i}.png" for i in range(count)),
    thumbnails=images[0],
  )
  return similar_sections.compare(
    bank,
    {
      "unlabelled": part("unlabelled", images[1], embeddings[1], labels),
      "validation": None,
      "test": part("test", images[2], embeddings[2], labels),
    },
    most=most,
    seed=0,
  )


def section(**changes):
  return similar_sections.near_duplicates(compared(**changes), CLASSES)


def test_nothing_is_said_without_a_comparison():
  assert similar_sections.near_duplicates(None, CLASSES) is None
  assert similar_sections.outliers(None, CLASSES) is None


def test_without_duplicates_the_section_says_so():
  made = section()
  assert made.text[0].startswith("0 pairs of the 36 images compared are alike")
  assert made.table is None
  assert made.groups == ()


def test_a_test_image_that_was_trained_on_is_a_warning():
  made = section(test_is_labelled=True)
  assert made.text[0].startswith("1 pair of the 36 images compared is alike")
  assert made.text[1].startswith("Warning: training images look like copies")
  assert made.table.rows == (("labelled and test images", "1", "1"),)
  ((title, (card,)),) = made.groups
  assert title == "labelled and test images"
  assert card.mark == "wrong"
  assert card.lines[0] == "labelled: cat and test: dog"
  assert (card.name, card.name_beside) == ("labelled 4.png", "test 5.png")


def test_two_labels_of_one_image_are_a_warning():
  made = section(wrong_label=True)
  assert made.text[1].startswith("Warning: near duplicates have different la")
  ((_, (card,)),) = made.groups
  assert card.lines[0] == "labelled: cat and labelled: dog"


def test_warnings_come_first_and_labels_are_sampled():
  both = section(wrong_label=True, test_is_labelled=True)
  assert len(both.groups) == 2
  few = compared(most=3)
  assert len(few) == 3 + 12 + 12


def test_harmless_pairs_are_no_warning():
  images = np.repeat(similar_images_test.photographs(1), 9, axis=0)
  embeddings = np.ones((9, 8))
  bank = sections_test.SupportBank(
    embeddings=embeddings[:1],
    labels=np.zeros(1, int),
    names=("a",),
    thumbnails=images[:1],
  )
  others = part("unlabelled", images, embeddings, np.zeros(9, int))
  found = similar_sections.compare(bank, {"unlabelled": others}, most=9, seed=0)
  made = similar_sections.near_duplicates(found, CLASSES)
  assert len(made.text) == 1
  assert [len(cards) for _, cards in made.groups] == [6, 6]
  assert {card.mark for _, cards in made.groups for card in cards} == {""}


def test_outliers_are_shown_with_their_similarity():
  found = compared()
  made = similar_sections.outliers(found, CLASSES)
  ((_, cards),) = made.groups
  assert len(cards) == 12
  values = np.concatenate(found.comparison.similarity)
  shown = [float(card.lines[0].split()[-1]) for card in cards]
  np.testing.assert_allclose(shown, np.sort(values)[:12], atol=0.006)
  names = np.concatenate(
    [
      [f"{kind} {i}.png" for i in range(12)]
      for kind in ("labelled", "unlabelled", "test")
    ]
  )
  assert cards[0].name == names[values.argmin()]
  assert similar_sections.outliers(compared(count=8), CLASSES) is None


@pytest.mark.parametrize("harm", [False, True])
def test_the_page_shows_both_images(harm):
  made = section(test_is_labelled=harm)
  page = page_lib.Page("t", "", "", (), (), (made,), "f")
  reader = page_test.check(page_lib.render(page))
  assert ("labelled 4.png" in reader.texts) == harm
  assert ("test 5.png" in reader.texts) == harm
  assert len(reader.values("src")) == 2 * harm
