"""What `health` watches: a rule for each way in which training goes wrong.

A rule gives a sentence when the newest numbers look wrong. Thresholds and where
they come from: docs/health.md.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from collections.abc import Mapping

# Feature rank (RankMe) of embeddings that all point the same way is 1.
_COLLAPSED_RANK = 1.5
# Target confidence in units of 1 / classes, that of a flat label.
_FLAT = 1.5
# KL(mean prediction ‖ prior) in units of the log of the number of classes,
# which is what it comes to when all images get one class.
_ONE_CLASS = 0.75
# Target confidence below the most there can be, of sure targets.
_SURE = 0.01
# Share of images whose views get one class, below which they contradict.
_CONTRADICTING = 0.7
# Nothing is left to learn: confidence, and cross-entropy in nats above the
# least that it can be.
_FINISHED = (0.9995, 0.01)
# Share of the classes that a step should use, in units of what so many images
# would use if they were spread evenly.
_USED = 0.95
# Confidence of the targets beyond the accuracy.
_GAP = 0.25
# Sum of relative changes of the weights over a whole run at a step's pace.
_DEAD = 0.001
# Cosine of an unlabelled image and the support that is nearest to it.
_FAR = 0.5


@dataclasses.dataclass(frozen=True)
class Facts:
  """What a recipe says that the rules need.

  Attributes:
    num_classes: columns of the predictions: classes sampled in a step.
    labels_per_class: labelled images a class, on average.
    images_per_step: unlabelled images a step.
    total_steps: of the run.
    warmup_steps: steps in which the learning rate rises.
    temperature: `method.temperature`.
    small_share: of the crops of an image, how many are small ones.
    label_smoothing: `support.label_smoothing`.
  """

  num_classes: int
  labels_per_class: float
  images_per_step: int
  total_steps: int
  warmup_steps: int
  temperature: float
  small_share: float = 0.0
  label_smoothing: float = 0.0

  @property
  def least_loss(self) -> float:
    """Cross-entropy in nats of a sure target and a vote that is all for it.

    Not 0: the label of every support leaves something to the other classes.
    """
    epsilon = self.label_smoothing
    return math.log(1 / (1 - epsilon + epsilon / self.num_classes))

  @property
  def early(self) -> float:
    """Steps that count as the very beginning."""
    return max(self.warmup_steps, 0.02 * self.total_steps, 1)

  @property
  def settled(self) -> float:
    """Steps after which a healthy run has found its way."""
    return max(self.warmup_steps, 0.1 * self.total_steps)


# A judgement of the newest numbers: a sentence, "" when all is well, or None
# when it is not the time to judge.
Judge = Callable[[Mapping[str, float], Facts], str | None]


@dataclasses.dataclass(frozen=True)
class Rule:
  """What is watched.

  Attributes:
    name: in plain words.
    on: it is judged when a line has one of these metrics.
    judge: the judgement.
    remedy: what to change.
    patience: lines in a row after which a change is believed.
    over: said when it ends; "": it does not.
  """

  name: str
  on: tuple[str, ...]
  judge: Judge
  remedy: str
  patience: int
  over: str


def _collapse(now: Mapping[str, float], facts: Facts) -> str | None:
  if now["step"] <= facts.settled:
    return None
  rank = now.get("feature_rank", math.inf)
  if rank < _COLLAPSED_RANK:
    return (
      "to the encoder all images look the same: their embeddings have a "
      f"feature rank of {rank:.2f}, and 1 means a single direction."
    )
  confidence = now.get("target_confidence", 1.0)
  if confidence < _FLAT / facts.num_classes:
    return (
      "all images get the same flat label: target confidence is "
      f"{confidence:.3f}, and 1 / {facts.num_classes} classes is a guess."
    )
  kl, most = now.get("me_max_kl", 0.0), math.log(facts.num_classes)
  if kl > _ONE_CLASS * most:
    return (
      "nearly all images get the same class: the mean prediction is "
      f"{kl:.2f} nats from its prior, of {most:.2f} when there is one class."
    )
  return ""


def _is_sure(now: Mapping[str, float], facts: Facts) -> bool:
  """Whether nearly all targets are one-hot.

  The target of a small crop is the mean of those of the large ones, so that it
  is one-hot only where they agree.
  """
  differ = 1 - now.get("view_agreement", 1.0)
  most = 1 - facts.small_share * differ / 2
  return now["target_confidence"] > most - _SURE


def _saturation(now: Mapping[str, float], facts: Facts) -> str | None:
  if not facts.early < now["step"] <= 0.75 * facts.total_steps:
    return None
  agreement = now.get("view_agreement", 1.0)
  confidence = now["target_confidence"]
  if _is_sure(now, facts) and agreement < _CONTRADICTING:
    return (
      "every view is sure of its label, yet two views of an image get the same "
      f"one in only {agreement:.0%}: the softmax is saturated and hardly a "
      f"gradient is left (method.temperature is {facts.temperature:g})."
    )
  loss = now.get("cross_entropy", math.inf)
  # RoPAWS weighs images by their probability of being of a known class.
  least = now.get("in_domain", 1.0) * facts.least_loss
  if confidence > _FINISHED[0] and loss - least < _FINISHED[1]:
    return (
      f"nothing is left to learn: target confidence is {confidence:.4f}, "
      f"cross-entropy {loss:.4f} (it cannot fall below {least:.4f}), and "
      f"{now['step']:.0f} of {facts.total_steps} steps are taken."
    )
  return ""


def _overconfident(now: Mapping[str, float], facts: Facts) -> str | None:
  # The first line is early whatever its length.
  first = now["step"] <= now["first_step"]
  if now["step"] > facts.early and not first:
    return None
  if not _is_sure(now, facts):
    return ""
  confidence = now["target_confidence"]
  return (
    f"target confidence is {confidence:.3f} although training has only begun: "
    "first guesses, right or wrong, are taken for the truth "
    f"(method.temperature is {facts.temperature:g})."
  )


def _unused(now: Mapping[str, float], facts: Facts) -> str | None:
  if now["step"] <= facts.settled:
    return None
  share = now["classes_used"]
  by_chance = 1 - (1 - 1 / facts.num_classes) ** facts.images_per_step
  if share >= _USED * by_chance:
    return ""
  return (
    f"of the {facts.num_classes} classes of a step only {share:.0%} are given "
    f"to any image, and {by_chance:.0%} would be if images were spread evenly."
  )


def _label_shortage(now: Mapping[str, float], facts: Facts) -> str | None:
  accuracy, what = now.get("soft_nn_top1"), "images that are watched"
  if "pseudo_label_accuracy" in now:
    accuracy = now["pseudo_label_accuracy"]
    what = "training images whose label is known but hidden"
  if now["step"] <= facts.total_steps / 4 or "target_confidence" not in now:
    return None
  confidence = now["target_confidence"]
  if confidence - accuracy <= _GAP:
    return ""
  return (
    f"target confidence is {confidence:.2f}, but only {accuracy:.0%} of the "
    f"{what} get the right label, with {facts.labels_per_class:.3g} labelled "
    "images a class."
  )


def _dead(now: Mapping[str, float], facts: Facts) -> str | None:
  if now["step"] > 0.95 * facts.total_steps or "param_norm" not in now:
    return None
  change = now["update_norm"] / max(now["param_norm"], 1e-30)
  if change * facts.total_steps >= _DEAD:
    return ""
  why = f"the learning rate is {now.get('learning_rate', math.nan):.3g}"
  if now.get("grad_norm") == 0:
    why = "the gradient is 0"
  return (
    f"the weights stand still: {why}, and at this pace the "
    f"{facts.total_steps} steps of the run change them by "
    f"{change * facts.total_steps:.1g} of their size."
  )


def _far(now: Mapping[str, float], facts: Facts) -> str | None:
  if now["step"] <= facts.settled:
    return None
  similarity = now["max_similarity"]
  if similarity >= _FAR:
    return ""
  return (
    "most unlabelled images resemble no labelled one: on average the nearest "
    f"support has a cosine of {similarity:.2f} (1: the same)."
  )


RULES = (
  Rule(
    "collapse",
    ("feature_rank", "target_confidence", "me_max_kl"),
    _collapse,
    "Set method.me_max on and method.sharpen_temperature to 0.25, lower "
    "optim.peak_lr or lengthen optim.warmup_epochs, and start again: a "
    "collapsed encoder seldom recovers.",
    3,
    "images are told apart again.",
  ),
  Rule(
    "saturation",
    ("target_confidence",),
    _saturation,
    "Raise method.temperature (0.1 in the paper); where views agree, make them "
    "harder (views.large_scale) or train shorter.",
    3,
    "there is something to learn again.",
  ),
  Rule(
    "unused classes",
    ("classes_used",),
    _unused,
    "Set method.me_max on. If the data really lack some classes or are far "
    "from balanced, leave it off or give the method a prior.",
    3,
    "all classes are used again.",
  ),
  Rule(
    "label shortage",
    ("pseudo_label_accuracy", "soft_nn_top1"),
    _label_shortage,
    "Label more images, those that stand for whole groups first, or set "
    "method.support_loss_weight to 1.",
    2,
    "accuracy has caught up with confidence.",
  ),
  Rule(
    "dead learning rate",
    ("update_norm",),
    _dead,
    "Raise optim.start_lr and optim.peak_lr; the recipes in configs/ have "
    "values for each optimiser.",
    3,
    "the weights move again.",
  ),
  Rule(
    "overconfident too early",
    ("target_confidence",),
    _overconfident,
    "Raise method.temperature or method.sharpen_temperature, or lower "
    "optim.start_lr and lengthen optim.warmup_epochs.",
    1,
    "",
  ),
  Rule(
    "far from supports",
    ("max_similarity",),
    _far,
    "Look at the unlabelled images: are they of the labelled classes at all? "
    "Label some that differ, or leave out what belongs to no class.",
    3,
    "unlabelled images are near labelled ones again.",
  ),
)
