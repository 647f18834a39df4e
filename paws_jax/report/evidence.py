"""Data of a report: votes on a run's images, results, metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from paws_jax.report import label_advice
from paws_jax.report import similar_sections
from paws_jax.report import votes
from paws_jax.runs import metrics
from paws_jax.runs import results
from paws_jax.training import restore
from paws_jax.training import save_classifier

# Images of a part that are embedded. Choosing what to label compares all pairs
# of unlabelled images: a second or two for so many. A ResNet-50 embeds some 15
# a second on a laptop's CPU: minutes. An accuracy is known to about 1 %.
MOST_IMAGES = 5000
_MOST_SUGGESTIONS = 100


@dataclasses.dataclass(frozen=True, eq=False)
class Evidence:
  """Data of a report.

  Attributes:
    class_names: K of them.
    temperature: τ of the vote.
    support_bank: the labelled images, a `support_bank.SupportBank`.
    labelled: the labelled images, each classified by the others; None when
      there is only one.
    tested: test or else validation images; None without.
    unlabelled: unlabelled images, or a sample; None without.
    suggestions: of the unlabelled ones, to be labelled next; None without.
    results: objects of results.json.
    metrics: lines of metrics.jsonl.
    losses: of these, what the method minimizes and shows.
    compared: all images compared with each other; None: not done.
  """

  class_names: tuple[str, ...]
  temperature: float
  support_bank: Any
  labelled: votes.VotedImages | None
  tested: votes.VotedImages | None
  unlabelled: votes.VotedImages | None
  suggestions: label_advice.Suggestions | None
  results: Sequence[Mapping[str, Any]]
  metrics: Sequence[Mapping[str, Any]]
  losses: Sequence[str]
  compared: similar_sections.Compared | None = None

  @property
  def counts(self) -> np.ndarray:
    """Int [K], labelled images of each class."""
    return np.bincount(
      self.support_bank.labels, minlength=len(self.class_names)
    )

  @property
  def known(self) -> votes.VotedImages | None:
    """Images whose class is known: tested ones, or else the labelled ones."""
    return self.tested or self.labelled


def gather(trained: restore.TrainedRun) -> Evidence:
  """Embeds the images of a run, and votes on them.

  Raises:
    errors.BadImageError: when an image cannot be read and must not be left out,
      or too few labelled ones can be.
    errors.NonFiniteError: when embeddings are not finite.
  """
  support_bank = save_classifier.from_trained(trained).support_bank
  parts: dict[str, votes.VotedImages | None] = {}
  for name in ("test", "validation", "unlabelled"):
    part = getattr(trained.experiment.dataset, name)
    if part is None or (name == "validation" and parts.get("test")):
      continue
    count = min(len(part), MOST_IMAGES)
    print(f"embedding {count} of {len(part)} {name} images ...")
    parts[name] = votes.vote_on_part(
      trained, support_bank, name, most=MOST_IMAGES
    )
  pool, suggestions = parts.get("unlabelled"), None
  if pool is not None:
    suggestions = label_advice.next_to_label(
      pool.embeddings, pool.entropy, pool.novelty, most=_MOST_SUGGESTIONS
    )
  return Evidence(
    class_names=tuple(trained.experiment.dataset.class_names),
    temperature=trained.experiment.temperature,
    support_bank=support_bank,
    labelled=votes.vote_on_labelled(trained, support_bank),
    tested=parts.get("test") or parts.get("validation"),
    unlabelled=pool,
    suggestions=suggestions,
    results=results.read_results(trained.workdir),
    metrics=metrics.read(trained.workdir / metrics.METRICS),
    losses=trained.experiment.trainer.method.shown_losses,
    compared=similar_sections.compare(
      support_bank, parts, most=MOST_IMAGES, seed=trained.recipe.seed
    ),
  )
