"""Sections of a report that show images with the supports that voted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paws_jax.report import evidence as evidence_lib
from paws_jax.report import figures
from paws_jax.report import label_advice
from paws_jax.report import page
from paws_jax.report import votes

# What a page shows at most, so that it opens on a phone.
_MOST_CERTAIN, _MOST_UNCERTAIN = 6, 9
_MOST_DOUBTFUL = 24
MOST_NEXT = 24
_MOST_VOTERS = 4


def examples(evidence: evidence_lib.Evidence) -> page.Section | None:
  """The images with the clearest and the most divided votes."""
  judged = evidence.tested or evidence.unlabelled or evidence.labelled
  if judged is None:
    return None
  order = np.argsort(judged.entropy, kind="stable")
  half = (len(order) + 1) // 2
  groups = [
    (
      "Most certain",
      varied(order[:half], judged.classes, most=_MOST_CERTAIN),
    ),
    ("Least certain", order[half:][::-1][:_MOST_UNCERTAIN]),
  ]
  if judged is evidence.tested:
    wrong = order[judged.classes[order] != judged.labels[order]]
    pairs = judged.labels * len(evidence.class_names) + judged.classes
    errors = varied(wrong, pairs, most=_MOST_UNCERTAIN)
    groups.append(("Most certain errors", errors))
  return page.Section(
    "examples",
    "Most and least certain",
    (
      f"{judged.title}, by the entropy of the vote: 0 nats when all votes "
      f"are for one class, {np.log(len(evidence.class_names)):.2f} when they "
      "are spread evenly over all. The most certain ones are the clearest of "
      "each of as many classes as fit. Below each image: the labelled images "
      "with the greatest shares of the vote.",
    ),
    groups=tuple(
      (title, _cards(evidence, judged, places))
      for title, places in groups
      if len(places)
    ),
  )


def varied(order: np.ndarray, kinds: np.ndarray, *, most: int) -> np.ndarray:
  """Chooses places of as many kinds as possible, in their order.

  The first of each kind is chosen, then the second of each, and so on.

  Args:
    order: places, the best first.
    kinds: int [n], the kind of each place.
    most: places to choose.
  """
  seen: dict[int, int] = {}
  rounds = []
  for kind in kinds[order].tolist():
    rounds.append(seen.get(kind, 0))
    seen[kind] = rounds[-1] + 1
  chosen = np.argsort(rounds, kind="stable")[:most]
  return order[np.sort(chosen)]


def doubtful(evidence: evidence_lib.Evidence) -> page.Section:
  """Labelled images whose label may be wrong."""
  alone = int((evidence.counts == 1).sum())
  title = "Labels to check"
  note = ""
  if alone:
    note = (
      f"{alone:,} classes with a single labelled image could not be checked."
      if alone > 1
      else "A class with a single labelled image could not be checked."
    )
  if evidence.labelled is None or alone == np.count_nonzero(evidence.counts):
    text = "No class has two labelled images: there is nothing to compare."
    return page.Section("labels", title, (text,))
  judged = evidence.labelled
  found = label_advice.doubtful(
    judged.probabilities, judged.labels, evidence.counts
  )
  if not len(found):
    text = (
      "The other labelled images agree with every label. The network was "
      "trained on these labels and may have memorized wrong ones."
    )
    return page.Section("labels", title, (text,), note=note)
  text = (
    f"{len(found):,} of {len(judged):,} labelled images get another class "
    "from the vote of the other labelled images. This is only a hint: some of "
    "these labels are wrong; others are right, and their images unusual."
  )
  if len(found) > _MOST_DOUBTFUL:
    text += f" The {_MOST_DOUBTFUL} clearest are shown."
  cards = _cards(evidence, judged, found[:_MOST_DOUBTFUL])
  return page.Section(
    "labels", title, (text,), groups=(("", cards),), note=note
  )


def next_labels(evidence: evidence_lib.Evidence) -> page.Section:
  """Unlabelled images whose labels would help most."""
  title = "What to label next"
  pool, suggestions = evidence.unlabelled, evidence.suggestions
  if pool is None or suggestions is None or not len(suggestions.rows):
    text = "The label of no unlabelled image would add information."
    if pool is None:
      text = "There are no unlabelled images."
    return page.Section("next", title, (text,))
  rows = suggestions.rows[:MOST_NEXT]
  reasons = [reason(evidence, i) for i in range(len(rows))]
  return page.Section(
    "next",
    title,
    (
      "The images whose labels would help most, in this order: each brings the "
      "undecided images closest to a labelled one. Images with a divided vote "
      "count more; those near a labelled image or an earlier suggestion count "
      "less.",
      f"{pool.title} were inspected. label_next.csv beside this page lists "
      f"{len(suggestions.rows):,} suggestions; {len(rows)} are shown here.",
    ),
    groups=(("", _cards(evidence, pool, rows, reasons)),),
  )


def reason(evidence: evidence_lib.Evidence, place: int) -> str:
  """Why a suggestion, by its place in the list, is one; in words."""
  pool, suggestions = evidence.unlabelled, evidence.suggestions
  assert pool is not None
  assert suggestions is not None
  names, row = evidence.class_names, suggestions.rows[place]
  first, second = np.argsort(-pool.probabilities[row], kind="stable")[:2]
  shares = pool.probabilities[row]
  text = f"{names[first]} ({page.percent(shares[first])})"
  if shares[second] > 0.5 * shares[first]:
    text = f"undecided between {text} and {names[second]} "
    text += f"({page.percent(shares[second])})"
  else:
    text = f"mostly {text}"
  if pool.novelty[row] > np.quantile(pool.novelty, 0.9):
    text += "; among the 10% least similar to any labelled image"
  count = int(suggestions.stands_for[place])
  if count > 1:
    text += f"; represents {count:,} similar images"
  return text


def _cards(
  evidence: evidence_lib.Evidence,
  judged: votes.VotedImages,
  places: np.ndarray,
  reasons: Sequence[str] = (),
) -> tuple[page.Card, ...]:
  """Cards of some images, with their voters."""
  support_bank = evidence.support_bank
  indices, shares = votes.voters(
    judged,
    places,
    support_bank,
    temperature=evidence.temperature,
    most=_MOST_VOTERS,
  )
  pixels, reasons = judged.images(places), reasons or [""] * len(places)
  return tuple(
    page.Card(
      picture=figures.thumbnail(pixels[i]),
      name=judged.name(place),
      lines=_lines(judged, place, evidence.class_names, reasons[i]),
      voters=tuple(
        page.Voter(
          figures.thumbnail(support_bank.thumbnails[k]),
          evidence.class_names[support_bank.labels[k]],
          support_bank.names[k],
          float(share),
        )
        for k, share in zip(indices[i], shares[i], strict=True)
      ),
      mark=_mark(judged, place),
    )
    for i, place in enumerate(map(int, places))
  )


def _lines(
  judged: votes.VotedImages, place: int, names: Sequence[str], reason: str
) -> tuple[str, ...]:
  """What is said of an image: the winner, its label, why it is shown."""

  def named(k: int) -> str:
    share = page.percent(judged.probabilities[place, k])
    return f"{names[k]}, {share}"

  lines = [named(int(judged.classes[place]))]
  if _mark(judged, place) == "wrong":
    said = "labelled" if judged.leave_one_out else "it is"
    lines.append(f"{said} {named(int(judged.labels[place]))}")
  lines.append(reason or f"entropy {judged.entropy[place]:.2f}")
  return tuple(lines)


def _mark(judged: votes.VotedImages, place: int) -> str:
  if judged.labels[place] < 0:
    return ""
  right = judged.labels[place] == judged.classes[place]
  return "right" if right else "wrong"
