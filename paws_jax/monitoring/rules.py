"""Health rules: one for each way in which training goes wrong.

A rule returns a sentence when the newest numbers look wrong. docs/health.md
explains the thresholds and their origin.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from collections.abc import Mapping

from paws_jax import config as config_lib
from paws_jax.monitoring import remedies

# Feature rank (RankMe) of embeddings that all point the same way is 1.
_COLLAPSED_RANK = 1.5
# The rank of a partial collapse, in units of that of the first line: sound runs
# without labels fell to 0.30, runs without a stopped gradient to 0.12.
_LOST_RANK = 0.2
# Of the rank that embeddings of classes need at most.
_FEW = 0.95
# Target confidence in units of 1 / classes, the confidence of a uniform label.
_FLAT = 1.5
# KL(mean prediction ‖ prior) in units of the log of the number of classes, its
# value when all images get the same class.
_ONE_CLASS = 0.75
# Distance of the target confidence from its maximum.
_SURE = 0.01
# Share of images whose two large views get the same class.
_CONTRADICTING = 0.7
# Nothing is left to learn: target confidence, and cross-entropy in nats above
# its minimum.
_FINISHED = (0.9995, 0.01)
# Share of the classes used in a step, in units of the share that uniformly
# distributed images would use.
_USED = 0.95
# Target confidence minus accuracy.
_GAP = 0.25
# Relative change of the weights over the entire run at the present pace.
_DEAD = 0.001
# Cosine of an unlabelled image and its nearest support.
_FAR = 0.5


@dataclasses.dataclass(frozen=True)
class Facts:
  """Facts of a recipe that the rules need.

  Attributes:
    num_classes: columns of the predictions: classes sampled in a step.
    labels_per_class: labelled images per class, on average.
    images_per_step: unlabelled images per step.
    total_steps: steps of the run.
    warmup_steps: steps in which the learning rate rises.
    temperature: `method.temperature`.
    small_share: share of small crops among the crops of an image.
    label_smoothing: `support.label_smoothing`.
    data_classes: classes of the data; 0: it has none.
    num_evaluated: images on which accuracy is measured; 0: unknown.
    recipe: the recipe, for remedies that are not in force yet.
  """

  num_classes: int
  labels_per_class: float
  images_per_step: int
  total_steps: int
  warmup_steps: int
  temperature: float
  small_share: float = 0.0
  label_smoothing: float = 0.0
  data_classes: int = 0
  num_evaluated: int = 0
  recipe: config_lib.Recipe = dataclasses.field(
    default_factory=config_lib.Recipe
  )

  @property
  def contradicting(self) -> float:
    """Share of images with agreeing views below which views contradict."""
    return _CONTRADICTING

  @property
  def min_loss(self) -> float:
    """Smallest cross-entropy in nats: a one-hot target, a unanimous vote.

    It exceeds 0 because a smoothed label gives every class a share.
    """
    epsilon = self.label_smoothing
    return math.log(1 / (1 - epsilon + epsilon / self.num_classes))

  @property
  def early(self) -> float:
    """Number of steps at the beginning of a run."""
    return max(self.warmup_steps, 0.02 * self.total_steps, 1)

  @property
  def settled(self) -> float:
    """Number of steps after which a healthy run makes progress."""
    return max(self.warmup_steps, 0.1 * self.total_steps)


# Takes the newest numbers and returns a sentence about a problem, "" without a
# problem, or None when it is too early or too late to judge.
Judge = Callable[[Mapping[str, float], Facts], str | None]
# Takes the same, and returns what may help, in sentences.
Remedy = Callable[[Mapping[str, float], Facts], str]


@dataclasses.dataclass(frozen=True)
class Rule:
  """A rule with its messages.

  Attributes:
    name: name of the problem.
    metrics: the rule applies to lines with one of these metrics.
    judge: the rule.
    remedy: returns the change that may help.
    patience: consecutive lines before a start or an end is reported.
    end_sentence: reported at the end; "": the problem has no end.
  """

  name: str
  metrics: tuple[str, ...]
  judge: Judge
  remedy: Remedy
  patience: int
  end_sentence: str


def _collapse(now: Mapping[str, float], facts: Facts) -> str | None:
  if now["step"] <= facts.settled:
    return None
  rank = now.get("feature_rank", math.inf)
  if rank < _COLLAPSED_RANK:
    return (
      "the embeddings of all images are nearly the same: their feature rank "
      f"is {rank:.2f}, and 1 means that all point in one direction."
    )
  if _has_lost_rank(now, facts):
    return (
      "the embeddings of all images lie in a few directions: their feature "
      f"rank is {rank:.1f}, and it was {now['first_rank']:.1f} when training "
      "began."
    )
  # Methods without these metrics need no classes.
  confidence = now.get("target_confidence")
  if confidence is not None and confidence < _FLAT / facts.num_classes:
    return (
      "all images get the same uniform label: target confidence is "
      f"{confidence:.3f}, and 1 / {facts.num_classes} is that of a guess among "
      f"{facts.num_classes} classes."
    )
  kl = now.get("me_max_kl")
  if kl is not None and kl > _ONE_CLASS * math.log(facts.num_classes):
    return (
      "nearly all images get the same class: the mean prediction is "
      f"{kl:.2f} nats from its prior, and {math.log(facts.num_classes):.2f} "
      "nats means one class for all."
    )
  return ""


def _has_lost_rank(now: Mapping[str, float], facts: Facts) -> bool:
  """Whether embeddings have collapsed to some directions, but not to one.

  Only of methods that report "output_std": where predictions are classes, as in
  PAWS, a rank of their number is no collapse. A method that uses labels without
  such predictions may come down to a direction for each class, too.
  """
  if "output_std" not in now or "first_rank" not in now:
    return False
  rank = now["feature_rank"]
  # Ideal embeddings of classes have one dimension less than classes.
  few = rank < _FEW * (facts.data_classes - 1) or not facts.data_classes
  return few and rank < _LOST_RANK * now["first_rank"]


def _is_sure(now: Mapping[str, float], facts: Facts) -> bool:
  """Whether nearly all targets are one-hot.

  The target of a small crop is the mean of the targets of the large crops, and
  one-hot only where they agree.
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
      "targets are nearly one-hot, but the two views of an image get the same "
      f"class for only {agreement:.0%} of the images: the softmax is "
      "saturated, and gradients are nearly zero (method.temperature is "
      f"{facts.temperature:g})."
    )
  loss = now.get("cross_entropy", math.inf)
  # RoPAWS weighs images by their probability of being of a known class.
  least = now.get("in_domain", 1.0) * facts.min_loss
  if confidence > _FINISHED[0] and loss - least < _FINISHED[1]:
    return (
      f"nothing is left to learn: target confidence is {confidence:.4f}, "
      f"cross-entropy is {loss:.4f} (its minimum is {least:.4f}), after "
      f"{now['step']:.0f} of {facts.total_steps} steps."
    )
  return ""


def _overconfident(now: Mapping[str, float], facts: Facts) -> str | None:
  # The first line counts as early, however many steps it covers.
  first = now["step"] <= now["first_step"]
  if now["step"] > facts.early and not first:
    return None
  if not _is_sure(now, facts):
    return ""
  confidence = now["target_confidence"]
  return (
    f"target confidence is {confidence:.3f} although training has only begun: "
    "the encoder learns its first guesses, whether they are right or wrong "
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
    f"only {share:.0%} of the {facts.num_classes} classes of a step are "
    f"predicted for any image, and {by_chance:.0%} would be if images were "
    "distributed uniformly."
  )


def _label_shortage(now: Mapping[str, float], facts: Facts) -> str | None:
  accuracy = now.get("soft_nn_top1")
  images = "evaluated images"
  if "pseudo_label_accuracy" in now:
    accuracy = now["pseudo_label_accuracy"]
    images = "training images with a hidden label"
  if now["step"] <= facts.total_steps / 4 or "target_confidence" not in now:
    return None
  confidence = now["target_confidence"]
  # One of the two is there: `RULES` names both.
  assert accuracy is not None
  if confidence - accuracy <= _GAP:
    return ""
  return (
    f"target confidence is {confidence:.2f}, but only {accuracy:.0%} of the "
    f"{images} get the right label, with {facts.labels_per_class:.3g} labelled "
    "images per class."
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
    f"the weights hardly change: {why}, and at this pace all "
    f"{facts.total_steps} steps together change them by "
    f"{change * facts.total_steps:.1g} of their size."
  )


def _far(now: Mapping[str, float], facts: Facts) -> str | None:
  if now["step"] <= facts.settled:
    return None
  similarity = now["max_similarity"]
  if similarity >= _FAR:
    return ""
  return (
    "most unlabelled images are unlike any labelled one: the mean cosine "
    f"similarity to the nearest support is {similarity:.2f}, and 1 means equal."
  )


RULES = (
  Rule(
    "collapse",
    ("feature_rank", "target_confidence", "me_max_kl"),
    _collapse,
    remedies.collapse,
    3,
    "embeddings and labels differ between images again.",
  ),
  Rule(
    "saturation",
    ("target_confidence",),
    _saturation,
    remedies.saturation,
    3,
    "there are errors to learn from again.",
  ),
  Rule(
    "unused classes",
    ("classes_used",),
    _unused,
    remedies.unused,
    3,
    "all classes are predicted again.",
  ),
  Rule(
    "label shortage",
    ("pseudo_label_accuracy", "soft_nn_top1"),
    _label_shortage,
    remedies.label_shortage,
    2,
    "accuracy has caught up with confidence.",
  ),
  Rule(
    "dead learning rate",
    ("update_norm",),
    _dead,
    remedies.dead,
    3,
    "the weights change again.",
  ),
  Rule(
    "overconfident too early",
    ("target_confidence",),
    _overconfident,
    remedies.overconfident,
    1,
    "",
  ),
  Rule(
    "far from supports",
    ("max_similarity",),
    _far,
    remedies.far,
    3,
    "unlabelled images resemble labelled ones again.",
  ),
)
