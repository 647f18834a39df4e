"""What the sections of a report say, with little and with much to show."""

import types

import numpy as np
import pytest

from paws_jax.data import dataset
from paws_jax.monitoring import monitor
from paws_jax.report import evidence as evidence_lib
from paws_jax.report import figures
from paws_jax.report import image_sections
from paws_jax.report import label_advice
from paws_jax.report import sections as sections_lib
from paws_jax.report import votes as votes_lib

RNG = np.random.default_rng(0)


class SupportBank(types.SimpleNamespace):
  def __len__(self):
    return len(self.labels)


def embedded(labels, num_classes):
  """Images that lie by the direction of their class."""
  noise = RNG.normal(size=(len(labels), 8)) * 0.05
  angles = 2 * np.pi * np.asarray(labels) / num_classes
  noise[:, 0] += np.cos(angles)
  noise[:, 1] += np.sin(angles)
  return noise.astype(np.float32)


def judged(kind, labels, probabilities, *, known=True, one_out=False):
  count, num_classes = probabilities.shape
  images = RNG.integers(0, 256, (count, 8, 8, 1), np.uint8)
  shown = np.asarray(labels) if known else np.full(count, -1)
  return votes_lib.VotedImages(
    part=dataset.LabelledImages(images, shown, lambda i: f"{kind} {i}"),
    kind=f"{kind} images",
    rows=np.arange(count),
    embeddings=embedded(labels, num_classes),
    probabilities=probabilities,
    novelty=np.linspace(0, 0.5, count),
    copies=np.arange(count) if one_out else None,
  )


def votes(winners, num_classes, share=0.9):
  rows = np.full((len(winners), num_classes), (1 - share) / (num_classes - 1))
  rows[np.arange(len(winners)), winners] = share
  return rows


def evidence(num_classes=3, *, per_class=2, pool=True, **changes):
  labels = np.repeat(np.arange(num_classes), per_class).astype(np.int32)
  names = tuple(f"class {k}" for k in range(num_classes))
  support_bank = SupportBank(
    embeddings=embedded(labels, num_classes),
    labels=labels,
    names=tuple(f"labelled {i}" for i in range(len(labels))),
    thumbnails=RNG.integers(0, 256, (len(labels), 8, 8, 1), np.uint8),
  )
  others = np.arange(12) % num_classes
  unlabelled = judged(
    "unlabelled", others, votes(others, num_classes, 0.6), known=False
  )
  fields = {
    "class_names": names,
    "temperature": 0.1,
    "support_bank": support_bank,
    "labelled": judged(
      "labelled", labels, votes(labels, num_classes), one_out=True
    ),
    "tested": judged("test", others, votes(others, num_classes)),
    "unlabelled": unlabelled if pool else None,
    "suggestions": label_advice.Suggestions(np.array([4, 2]), np.array([3, 1]))
    if pool
    else None,
    "results": [],
    "metrics": [],
    "losses": ("cross_entropy",),
  }
  return evidence_lib.Evidence(**(fields | changes))


def text(section):
  """All sentences of a section."""
  cards = [card for _, group in section.groups for card in group]
  lines = [line for card in cards for line in card.lines]
  return " ".join([*section.text, *lines, section.note])


def test_all_sections_in_their_order():
  results = [{"task": "pretrain", "protocol": "soft_nn", "num_test": 9}]
  made = sections_lib.sections(
    evidence(
      results=[results[0] | {"top1": 0.5, "top5": 1.0, "steps": 1234}],
      metrics=[{"step": 1, "loss": 1.0, "cross_entropy": 1.0}],
    )
  )
  assert [section.anchor for section in made] == [
    *("accuracy", "training", "confusion", "classes", "map", "examples"),
    *("labels", "next"),
  ]
  (row,) = made[0].table.rows
  assert row == (
    "soft nearest neighbors (pretrain)",
    "50.0%",
    "22.7% to 77.3%",
    "100.0%",
    "9 test",
    "1,234",
  )


def test_a_run_without_results_says_so():
  section = sections_lib.accuracy(evidence())
  assert section.table is None
  assert "no result yet" in text(section)


def test_what_was_found_out_about_training_is_told():
  row = {"step": 1000, "loss": 1.0, "cross_entropy": 1.0}
  finding = monitor.Finding("collapse", 1000, "All alike.", "Lower it.")
  over = monitor.Finding("collapse", 1000, "It is over.", "", ends=True)
  rows = [row, *({"step": 1000} | f.as_row() for f in (finding, over))]
  section = sections_lib.training(evidence(metrics=rows))
  assert section.text == ("From step 1,000: All alike. Lower it.",)


def test_confusions_are_counted():
  labels = np.array([0, 0, 0, 1, 1, 2])
  predicted = np.array([0, 1, 1, 1, 2, 2])
  tested = judged("test", labels, votes(predicted, 3))
  made = evidence(tested=tested)
  section = sections_lib.confusion(made)
  assert "6 test images: 3 of 6 (50.0%) are classified correctly" in text(
    section
  )
  assert section.table.rows == (
    ("class 0", "class 1", "2 of 3"),
    ("class 1", "class 2", "1 of 2"),
  )
  rows = sections_lib.classes(made).table
  assert rows.columns == (
    *("class", "labelled", "test images", "right", "95% interval"),
    "share of unlabelled images",
  )
  assert rows.rows[0] == (
    *("class 0", "2", "3", "33.3%", "6.1% to 79.2%", "33.3%"),
  )


def test_without_test_images_the_labelled_ones_serve():
  made = evidence(tested=None)
  assert "6 labelled images, each classified by the others" in text(
    sections_lib.confusion(made)
  )
  assert "12 unlabelled images" in text(image_sections.examples(made))
  assert [t for t, _ in image_sections.examples(made).groups] == [
    "Most certain",
    "Least certain",
  ]


def test_without_unlabelled_images():
  made = evidence(pool=False)
  assert "There are no unlabelled images." in text(
    image_sections.next_labels(made)
  )
  assert "unlabelled" not in text(sections_lib.embedding_map(made))
  assert "dots are test images" in text(sections_lib.embedding_map(made))
  columns = sections_lib.classes(made).table.columns
  assert "share of unlabelled images" not in columns


def test_with_nothing_but_labelled_images_of_single_classes():
  made = evidence(per_class=1, tested=None, pool=False)
  assert "nothing to compare" in text(image_sections.doubtful(made))
  sections = sections_lib.sections(made)
  assert "map" in [section.anchor for section in sections]
  made = evidence(per_class=1, tested=None, pool=False, labelled=None)
  assert sections_lib.confusion(made) is None
  assert image_sections.examples(made) is None
  assert "nothing to compare" in text(image_sections.doubtful(made))
  assert sections_lib.classes(made).table.columns == ("class", "labelled")


@pytest.mark.parametrize("num_classes", [41, 3000])
def test_many_classes(num_classes, monkeypatch):
  drawn = []
  monkeypatch.setattr(
    figures,
    "confusion",
    lambda counts, names, others: drawn.append((counts, names, others)),
  )
  labels = np.arange(60) % 41
  predicted = np.where(labels == 30, 7, labels)
  tested = judged("test", labels, votes(predicted, num_classes))
  made = evidence(num_classes, per_class=1, pool=False, tested=tested)
  section = sections_lib.confusion(made)
  (counts, names, others) = drawn[0]
  assert others
  assert len(names) == len(counts) == 40
  assert counts.sum() == 60
  assert names[-1] == "others"
  assert counts[names.index("class 30"), names.index("class 7")] == 1
  assert f"The 39 of {num_classes:,} classes" in text(section)
  section = sections_lib.classes(made)
  assert section.folded
  assert len(section.table.rows) == min(num_classes, 200)
  if num_classes > 200:
    assert f"The 200 of {num_classes:,} classes" in text(section)
    assert section.table.rows[0][0] == "class 30"
    # Classes without a test image say nothing about it.
    assert section.table.rows[-1][2:] == ("0", "", "")


def test_examples_are_ranked_and_marked():
  labels = np.zeros(8, int)
  probabilities = np.stack(
    [1 - np.linspace(0.05, 0.7, 8), np.linspace(0.05, 0.7, 8)], axis=1
  )
  tested = judged("test", labels, probabilities)
  section = image_sections.examples(evidence(2, tested=tested))
  groups = dict(section.groups)
  assert [c.name for c in groups["Most certain"]] == [
    f"test {i}" for i in (0, 1, 2, 7)
  ]
  assert [c.name for c in groups["Least certain"]] == [
    f"test {i}" for i in (5, 4, 6, 3)
  ]
  wrong = groups["Most certain errors"]
  assert [card.name for card in wrong] == ["test 7", "test 6", "test 5"]
  assert {card.mark for card in wrong} == {"wrong"}
  assert [card.mark for card in groups["Most certain"]] == [
    *["right"] * 3,
    "wrong",
  ]
  assert wrong[0].lines[:2] == ("class 1, 70.0%", "it is class 0, 30.0%")
  assert "0.69 when they" in text(section)
  shares = [voter.share for voter in wrong[0].voters]
  assert shares == sorted(shares, reverse=True)
  assert all(v.name.startswith("labelled ") for v in wrong[0].voters)


def test_doubtful_labels_are_a_hint():
  labels = np.array([0, 0, 0, 1, 1, 2])
  winners = np.array([0, 0, 1, 1, 1, 0])
  made = evidence(
    labelled=judged("labelled", labels, votes(winners, 3), one_out=True)
  )
  made.support_bank.labels = labels.astype(np.int32)
  section = image_sections.doubtful(made)
  ((_, cards),) = section.groups
  assert [card.name for card in cards] == ["labelled 2"]
  assert cards[0].lines[:2] == ("class 1, 90.0%", "labelled class 0, 5.0%")
  # An image does not vote for itself.
  assert "labelled 2" not in [voter.name for voter in cards[0].voters]
  assert "1 of 6 labelled images" in text(section)
  assert "only a hint" in text(section)
  assert "A class with a single labelled image could not" in section.note


def test_no_doubtful_labels():
  assert "agree with every label" in text(image_sections.doubtful(evidence()))


def test_many_doubtful_labels_are_cut_and_that_is_said():
  labels = np.repeat([0, 1, 2], 10)
  made = evidence(
    per_class=10,
    labelled=judged(
      "labelled", labels, votes((labels + 1) % 3, 3), one_out=True
    ),
  )
  section = image_sections.doubtful(made)
  assert len(section.groups[0][1]) == 24
  assert "30 of 30" in text(section)
  assert "The 24 clearest are shown." in text(section)


def test_suggestions_have_reasons():
  made = evidence()
  pool = made.unlabelled
  pool.probabilities[4] = (0.1, 0.5, 0.4)
  pool.novelty[4] = 0.9
  assert image_sections.reason(made, 0) == (
    "undecided between class 1 (50.0%) and class 2 (40.0%); among the 10% "
    "least similar to any labelled image; represents 3 similar images"
  )
  assert image_sections.reason(made, 1) == "mostly class 2 (60.0%)"
  section = image_sections.next_labels(made)
  assert [c.name for c in section.groups[0][1]] == [
    "unlabelled 4",
    "unlabelled 2",
  ]
  assert (
    "12 unlabelled images were inspected. label_next.csv beside this page "
    "lists 2 suggestions"
  ) in text(section)


def test_suggestions_that_would_tell_nothing():
  nothing = label_advice.Suggestions(np.zeros(0, int), np.zeros(0, int))
  made = evidence(suggestions=nothing)
  assert "would add information" in text(image_sections.next_labels(made))
  assert "cross" not in text(sections_lib.embedding_map(made))


@pytest.mark.parametrize(
  ("kinds", "most", "chosen"),
  [
    # All of one kind: the first ones.
    ([1, 1, 1, 1], 2, [0, 1]),
    # The best of each kind, however many of another kind are better.
    ([0, 0, 0, 0, 1, 2], 3, [0, 4, 5]),
    # More kinds than places: the best of them.
    ([3, 3, 2, 1, 0], 2, [0, 2]),
    # Fewer: the second of each, then the third.
    ([0, 0, 0, 0, 1], 4, [0, 1, 2, 4]),
    ([], 4, []),
  ],
)
def test_examples_are_of_many_classes(kinds, most, chosen):
  kinds = np.asarray(kinds, int)
  # Places in another order than their numbers.
  order = np.arange(len(kinds))[::-1]
  found = image_sections.varied(order, kinds[::-1], most=most)
  assert found.tolist() == order[np.asarray(chosen, int)].tolist()


def test_the_clearest_examples_and_errors_show_variety():
  # Class 0 has the clearest votes, all right; of the errors most are 1 for 2.
  labels = np.repeat([0, 1, 2, 2], 10)
  winners = np.repeat([0, 1, 2, 1], 10)
  winners[-1] = 0
  shares = np.linspace(0.99, 0.6, 40)[:, None]
  probabilities = np.where(np.eye(3)[winners] > 0, shares, (1 - shares) / 2)
  tested = judged("test", labels, probabilities)
  groups = dict(image_sections.examples(evidence(3, tested=tested)).groups)
  first = {card.lines[0].partition(",")[0] for card in groups["Most certain"]}
  assert first == {"class 0", "class 1"}
  assert groups["Most certain"][0].name == "test 0"
  errors = [card.lines[0] for card in groups["Most certain errors"]]
  assert any(line.startswith("class 0") for line in errors)
