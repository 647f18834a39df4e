"""The vote of the labelled images on other images, and on each other."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from paws_jax import errors
from paws_jax.classifier import similar_images
from paws_jax.data import dataset
from paws_jax.data.labels import copies
from paws_jax.evaluation import neighbors
from paws_jax.evaluation import soft_nn
from paws_jax.training import restore

# Images between two lines of progress.
_CHUNK = 1024


@dataclasses.dataclass(frozen=True, eq=False)
class VotedImages:
  """Images of a part of the data, with the vote of the labelled images.

  Attributes:
    part: where they are from.
    kind: in words: "test images".
    rows: int [n], their places in the part.
    embeddings: float32 [n, D].
    probabilities: float32 [n, K].
    novelty: float32 [n], 1 - cosine similarity to the nearest labelled image.
    num_unreadable: images left out because they cannot be read.
    copies: int [n], of the labelled images themselves in the order of the
      support bank, each classified by the others: the first one with the same
      contents, as these do not vote on each other. None: other images.
    pictures: float32 [n, 256], of `similar_images.shrink`; None: not made.
  """

  part: dataset.LabelledImages
  kind: str
  rows: np.ndarray
  embeddings: np.ndarray
  probabilities: np.ndarray
  novelty: np.ndarray
  num_unreadable: int = 0
  copies: np.ndarray | None = None
  pictures: np.ndarray | None = None

  @property
  def leave_one_out(self) -> bool:
    """Whether they are the labelled images, each classified by the others."""
    return self.copies is not None

  def __len__(self) -> int:
    """Number of images."""
    return len(self.rows)

  @functools.cached_property
  def labels(self) -> np.ndarray:
    """Int [n]; -1 where a label is not known."""
    return self.part.labels[self.rows]

  @functools.cached_property
  def classes(self) -> np.ndarray:
    """Int [n], the most probable ones."""
    return self.probabilities.argmax(axis=1)

  @functools.cached_property
  def entropy(self) -> np.ndarray:
    """float32 [n], of the probabilities, in nats."""
    logs = np.log(np.maximum(self.probabilities, 1e-30))
    return -(self.probabilities * logs).sum(axis=1)

  @property
  def title(self) -> str:
    """Number and kind, as the start of a sentence."""
    total, inspected = len(self.part), len(self) + self.num_unreadable
    text = f"{len(self):,} {self.kind}"
    if inspected < total:
      text += f" sampled from {total:,}"
    if self.leave_one_out:
      text += ", each classified by the others"
    if self.num_unreadable:
      text += f" ({self.num_unreadable:,} more cannot be read)"
    return text

  def name(self, place: int) -> str:
    """Name of an image."""
    return self.part.name(int(self.rows[place]))

  def images(self, places: Sequence[int] | np.ndarray) -> np.ndarray:
    """uint8 [m, H, W, Ch]; read now."""
    return self.part.images[self.rows[np.asarray(places, int)]]


def vote_on_labelled(
  trained: restore.TrainedRun, support_bank: Any
) -> VotedImages | None:
  """Votes on the labelled images by the others; None without two different.

  Args:
    trained: the run.
    support_bank: its `support_bank.SupportBank`.
  """
  if len(support_bank) < 2:
    return None
  part = trained.experiment.dataset.labelled
  groups = copies.among(part.copies, part.readable)
  if len(np.unique(groups)) < 2:
    return None
  supports = support_bank.embeddings
  cosines, _ = neighbors.nearest(
    supports, supports, 1, excluded=groups, copies=groups
  )
  return VotedImages(
    part=part,
    kind="labelled images",
    rows=np.flatnonzero(part.readable),
    embeddings=supports,
    probabilities=_vote(trained, support_bank, supports, groups=groups),
    novelty=1 - cosines[:, 0],
    num_unreadable=int((~part.readable).sum()),
    copies=groups,
  )


def vote_on_part(
  trained: restore.TrainedRun, support_bank: Any, name: str, *, most: int
) -> VotedImages | None:
  """Embeds images of a part, and votes on them.

  Args:
    trained: the run.
    support_bank: its `support_bank.SupportBank`.
    name: "validation", "test" or "unlabelled".
    most: images to sample, by the run's seed, where there are more.

  Returns:
    None when there are none, or none that can be read.

  Raises:
    errors.BadImageError: as the recipe says.
    errors.NonFiniteError: when embeddings are not finite.
  """
  part = getattr(trained.experiment.dataset, name)
  if part is None or not len(part):
    return None
  rows = draw(len(part), most, seed=trained.recipe.seed)
  embeddings, pictures = _embed(trained, part, rows, name)
  readable = part.readable[rows]
  if not readable.any():
    return None
  embeddings = embeddings[readable]
  cosines, _ = neighbors.nearest(embeddings, support_bank.embeddings, 1)
  return VotedImages(
    part=part,
    kind=f"{name} images",
    rows=rows[readable],
    embeddings=embeddings,
    probabilities=_vote(trained, support_bank, embeddings),
    novelty=1 - cosines[:, 0],
    num_unreadable=int((~readable).sum()),
    pictures=pictures[readable],
  )


def draw(total: int, most: int, *, seed: int) -> np.ndarray:
  """At most `most` of the numbers below `total`, sorted."""
  if total <= most:
    return np.arange(total)
  chosen = np.random.default_rng(seed).choice(total, most, replace=False)
  return np.sort(chosen)


def voters(
  judged: VotedImages,
  places: np.ndarray,
  support_bank: Any,
  *,
  temperature: float,
  most: int,
) -> tuple[np.ndarray, np.ndarray]:
  """Finds the labelled images with the greatest shares of some votes.

  Args:
    judged: the images voted on.
    places: int [m], which of them.
    support_bank: the voters.
    temperature: τ of the vote.
    most: voters to name for each.

  Returns:
    (places in the support bank int [m, k], shares [m, k]), the greatest first.
  """
  places = np.asarray(places, int)
  supports, groups = support_bank.embeddings, judged.copies
  num_silent = 0 if groups is None else int(np.bincount(groups).max())
  return neighbors.voters(
    judged.embeddings[places],
    supports,
    min(most, len(supports) - num_silent),
    temperature=temperature,
    excluded=None if groups is None else groups[places],
    copies=groups,
  )


def _vote(
  trained: restore.TrainedRun,
  support_bank: Any,
  embeddings: np.ndarray,
  *,
  groups: np.ndarray | None = None,
) -> np.ndarray:
  return soft_nn.soft_nn_probabilities(
    embeddings,
    support_bank.embeddings,
    support_bank.labels,
    num_classes=trained.experiment.dataset.num_classes,
    temperature=trained.experiment.temperature,
    leave_one_out=groups is not None,
    copies=groups,
  )


def _embed(
  trained: restore.TrainedRun,
  part: dataset.LabelledImages,
  rows: np.ndarray,
  name: str,
) -> tuple[np.ndarray, np.ndarray]:
  """Embeds some images chunk by chunk, and makes small pictures of them."""
  size = trained.experiment.eval.batch_size
  chunk = size * max(1, _CHUNK // size)
  parts, pictures = [], []
  for first in range(0, len(rows), chunk):
    if len(rows) > chunk:
      print(f"embedding {name} images: {first} of {len(rows)}")
    images = part.images[rows[first : first + chunk]]
    parts.append(
      trained.experiment.embed(trained.params, trained.batch_stats, images)
    )
    pictures.append(similar_images.shrink(images))
  embeddings = np.concatenate(parts)
  bad = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
  if len(bad):
    raise errors.NonFiniteError(
      f"the embeddings of {len(bad)} {name} images are not finite, the first "
      f"is {part.name(int(rows[bad[0]]))}: the encoder of step {trained.step} "
      "has diverged."
    )
  return embeddings, np.concatenate(pictures)
