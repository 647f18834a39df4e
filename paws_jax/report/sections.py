"""Sections of a report on the vote for a run's images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paws_jax.evaluation import accuracy as accuracy_lib
from paws_jax.monitoring import monitor
from paws_jax.report import accuracy as report_accuracy
from paws_jax.report import evidence as evidence_lib
from paws_jax.report import figures
from paws_jax.report import image_sections
from paws_jax.report import page
from paws_jax.report import similar_sections
from paws_jax.training import estimated_prior

# What a page shows at most.
_MOST_CLASSES, _MOST_UNFOLDED = 200, 20
_MOST_CONFUSED = 40
_MOST_PAIRS = 12


def sections(
  evidence: evidence_lib.Evidence,
) -> tuple[page.Section, ...]:
  """All sections, in their order; reads the images that are shown."""
  made = (
    accuracy(evidence),
    training(evidence),
    confusion(evidence),
    classes(evidence),
    embedding_map(evidence),
    image_sections.examples(evidence),
    image_sections.doubtful(evidence),
    similar_sections.near_duplicates(evidence.compared, evidence.class_names),
    similar_sections.outliers(evidence.compared, evidence.class_names),
    image_sections.next_labels(evidence),
  )
  return tuple(section for section in made if section is not None)


def accuracy(evidence: evidence_lib.Evidence) -> page.Section:
  """A row for each protocol that was measured."""
  found = report_accuracy.accuracies(evidence.results)
  rows = tuple(
    (
      f"{a.protocol} ({a.task})",
      page.percent(a.top1),
      " to ".join(map(page.percent, a.interval)),
      "" if a.top5 is None else page.percent(a.top5),
      f"{a.count:,} {a.part}",
      "" if a.step is None else f"{a.step:,}",
    )
    for a in found
  )
  columns = ("protocol", "top-1", "95% interval", "top-5", "images", "step")
  text = (
    "The newest result of each protocol. Soft nearest neighbors is a vote of "
    "all labelled images, each weighted by its similarity to the image; the "
    "rest of this page shows that vote. Leave-one-out classifies each labelled "
    "image by the vote of the others. On raw pixels nothing is learned from "
    "the unlabelled images: a trained encoder should be better. Intervals are "
    "Wilson's.",
  )
  if not found:
    text = ("The run has no result yet: results are written after training.",)
  table = page.Table(columns, rows) if found else None
  return page.Section("accuracy", "Accuracy", text, table=table)


def training(evidence: evidence_lib.Evidence) -> page.Section | None:
  """Curves; None when nothing was recorded."""
  figure = figures.curves(evidence.metrics, losses=evidence.losses)
  if figure is None:
    return None
  return page.Section(
    "training",
    "Training",
    tuple(
      f"From step {finding.step:,}: {finding.sentence} {finding.remedy}"
      for finding in monitor.recorded(evidence.metrics)
      if not finding.ends
    ),
    figure=figure,
    caption="Losses, accuracy and other measurements over the steps.",
  )


def confusion(evidence: evidence_lib.Evidence) -> page.Section | None:
  """The confusion matrix and the most frequent errors."""
  known, names = evidence.known, evidence.class_names
  if known is None:
    return None
  wrong = known.classes != known.labels
  right = len(known) - int(wrong.sum())
  text = [
    f"{known.title}: {right:,} of {len(known):,} "
    f"({page.percent(right / len(known))}) are classified correctly by the "
    "vote."
  ]
  # With thousands of classes, the entire matrix would take gigabytes.
  group, drawn = np.arange(len(names)), list(names)
  if len(names) > _MOST_CONFUSED:
    involved = np.concatenate([known.classes[wrong], known.labels[wrong]])
    errors = np.bincount(involved, minlength=len(names))
    shown = np.argsort(-errors, kind="stable")[: _MOST_CONFUSED - 1]
    shown.sort()
    group = np.full(len(names), len(shown))
    group[shown] = np.arange(len(shown))
    drawn = [*(names[k] for k in shown), "others"]
    text.append(
      f"The {len(shown)} of {len(names):,} classes with the most errors are "
      "shown; the last row and column combine all others."
    )
  return page.Section(
    "confusion",
    "Confusion matrix",
    tuple(text),
    figure=figures.confusion(
      accuracy_lib.confusion_matrix(
        group[known.classes], group[known.labels], num_classes=len(drawn)
      ),
      drawn,
      others=len(names) > _MOST_CONFUSED,
    ),
    caption="Rows: the true class. Columns: the class that won the vote.",
    table=_pairs(known.classes, known.labels, names),
  )


def _pairs(
  predicted: np.ndarray, labels: np.ndarray, names: Sequence[str]
) -> page.Table | None:
  """The most frequent confusions; None without any."""
  totals = np.bincount(labels, minlength=len(names))
  wrong = np.flatnonzero(predicted != labels)
  pairs, counts = np.unique(
    np.stack([labels[wrong], predicted[wrong]]), axis=1, return_counts=True
  )
  order = np.argsort(-counts, kind="stable")[:_MOST_PAIRS]
  rows = tuple(
    (names[i], names[j], f"{count:,} of {totals[i]:,}")
    for (i, j), count in zip(pairs.T[order], counts[order], strict=True)
  )
  columns = ("true class", "predicted class", "images")
  return page.Table(columns, rows) if rows else None


def classes(evidence: evidence_lib.Evidence) -> page.Section:
  """A row for each class."""
  names, known = evidence.class_names, evidence.known
  order = np.arange(len(names))
  text: tuple[str, ...] = ()
  columns: dict[str, Sequence[str]] = {
    "class": names,
    "labelled": _counted(evidence.counts),
  }
  if known is not None:
    totals = np.bincount(known.labels, minlength=len(names))
    hits = known.labels[known.classes == known.labels]
    rights = np.bincount(hits, minlength=len(names))
    columns[known.kind] = _counted(totals)
    columns["right"], columns["95% interval"] = zip(
      *map(_fraction, rights.tolist(), totals.tolist()), strict=True
    )
    # Those without an image come last.
    order = np.argsort(rights / np.maximum(totals, 1) + (totals == 0) * 2)
  if evidence.unlabelled is not None:
    won = np.bincount(evidence.unlabelled.classes, minlength=len(names))
    shares = won / len(evidence.unlabelled)
    columns["share of unlabelled images"] = list(map(page.percent, shares))
  text += _add_prior(columns, evidence)
  if len(names) > _MOST_CLASSES:
    text += (
      f"The {_MOST_CLASSES} of {len(names):,} classes with the most errors.",
    )
    order = order[:_MOST_CLASSES]
  else:
    order.sort()
  rows = list(zip(*columns.values(), strict=True))
  return page.Section(
    "classes",
    "Classes",
    text,
    table=page.Table(tuple(columns), tuple(rows[k] for k in order)),
    folded=len(order) > _MOST_UNFOLDED,
  )


def _add_prior(
  columns: dict[str, Sequence[str]], evidence: evidence_lib.Evidence
) -> tuple[str, ...]:
  """Adds a column with the estimated prior; returns words about it."""
  rows = [row for row in evidence.results if row.get("prior")]
  if not rows:
    return ()
  shares = dict(rows[-1]["prior"])
  columns["estimated prior"] = [
    page.percent(shares[name]) if name in shares else ""
    for name in evidence.class_names
  ]
  sure = estimated_prior.confidence(rows[-1].get("prior_held_out_accuracy"))
  return (
    "The estimated prior is the share of each class that training assumed "
    f"among the unlabelled images (method.prior): {sure}, and the shares by "
    "the labels alone and by training differ by "
    f"{page.percent(rows[-1]['prior_change'])}.",
  )


def _counted(counts: np.ndarray) -> list[str]:
  return [f"{count:,}" for count in counts]


def _fraction(right: int, count: int) -> tuple[str, str]:
  """Percent and interval; blank without an image."""
  if not count:
    return "", ""
  interval = accuracy_lib.confidence_interval(right / count, int(count))
  return (
    page.percent(right / count),
    " to ".join(map(page.percent, interval)),
  )


def embedding_map(evidence: evidence_lib.Evidence) -> page.Section:
  """Where the images lie, by t-SNE."""
  support_bank = evidence.support_bank
  rings = figures.Points(
    "labelled", support_bank.embeddings, support_bank.labels
  )
  dots, meaning = _dots(evidence)
  text: tuple[str, ...] = (
    f"Rings are labelled images{meaning}. Images that are similar for the "
    "encoder lie close together; distances between distant groups mean little.",
  )
  total = len(rings.classes) + len(dots.classes)
  most = figures.MOST_POINTS
  if total > most:
    text += (f"At most {most:,} of {total:,} images are shown.",)
  return page.Section(
    "map",
    "Map of the embeddings",
    text,
    figure=figures.embedding_map(rings, dots, evidence.class_names),
    caption="t-SNE of cosine similarities.",
  )


def _dots(
  evidence: evidence_lib.Evidence,
) -> tuple[figures.Points, str]:
  """The unlabelled or test images of the map, and a text about them."""
  pool, tested = evidence.unlabelled, evidence.tested
  if pool is not None:
    assert evidence.suggestions is not None
    meaning = (
      ", dots are unlabelled images in the color of the class that won the vote"
    )
    chosen = evidence.suggestions.rows[: image_sections.MOST_NEXT]
    if len(chosen):
      meaning += ", crosses are images that this page suggests to label next"
    points = figures.Points("unlabelled", pool.embeddings, pool.classes, chosen)
    return points, meaning
  if tested is not None:
    points = figures.Points(tested.kind, tested.embeddings, tested.labels)
    meaning = f", dots are {tested.kind} in the color of their class"
    return points, meaning
  support_bank = evidence.support_bank
  return figures.Points(
    "", support_bank.embeddings[:0], support_bank.labels[:0]
  ), ""
