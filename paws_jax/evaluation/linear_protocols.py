"""The linear protocols of four papers, as numbers and an optimizer.

Each trains a linear layer on the features of a trunk that does not change, from
crops that are cut and flipped at random. They differ in optimizer, rate,
schedule and length, so that their accuracies are not those of one another, nor
of `linear_probe`, which solves a convex problem without augmentation.

References:
  MoCo v2 (2020), SimSiam (2021), SwAV (2020), BYOL (2020) and their public
  code.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from paws_jax import errors
from paws_jax import optim

# Learning rates are given for this many images a step.
_RATE_IMAGES = 256
_MOMENTUM = 0.9
_TRUST_COEFFICIENT = 1e-3
_DROP = 0.1


@dataclasses.dataclass(frozen=True)
class LinearProtocol:
  """The constants of a protocol; its loss is the mean cross-entropy.

  Attributes:
    paper: whose protocol it is, for a reader.
    batch_size: images of a step.
    epochs: passes over the labelled images.
    base_learning_rate: at 256 images a step; proportional to their number.
    schedule: "epoch_cosine" (half a cosine to 0, constant within an epoch),
      "step_cosine" (the same by steps) or "drops".
    drops: of "drops": epochs, of `epochs`, after which the rate is a tenth.
    nesterov: kind of the momentum, which is 0.9.
    lars: whether updates are rescaled to the norms of the weights.
    weight_decay: of weights and biases.
    init_std: of the normal distribution of the initial weights; None: that of
      LeCun. The bias starts at 0.
  """

  paper: str
  batch_size: int
  epochs: int
  base_learning_rate: float
  schedule: str
  drops: tuple[int, ...] = ()
  nesterov: bool = False
  lars: bool = False
  weight_decay: float = 0.0
  init_std: float | None = 0.01

  def learning_rate(self, num_images: int) -> float:
    """Returns the rate of the first step, of that many images a step."""
    return self.base_learning_rate * num_images / _RATE_IMAGES

  def learning_rates(
    self, peak: float, *, epochs: int, steps_per_epoch: int
  ) -> optax.Schedule:
    """Builds the schedule, which is that of the paper at another length.

    Args:
      peak: rate of the first step.
      epochs: length; epochs with a drop move in proportion, and up.
      steps_per_epoch: steps of an epoch.
    """
    if self.schedule == "drops":
      return optim.epoch_drops(
        peak_lr=peak,
        factor=_DROP,
        drops=self.drops,
        of_epochs=self.epochs,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
      )

    def cosine(step: jax.Array | int) -> jax.Array:
      step = jnp.asarray(step)
      if self.schedule == "epoch_cosine":
        step = step // steps_per_epoch * steps_per_epoch
      done = jnp.asarray(step, float) / (epochs * steps_per_epoch)
      return peak * 0.5 * (1 + jnp.cos(math.pi * jnp.clip(done, 0, 1)))

    return cosine

  def optimizer(self, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Builds the optimizer; the rate is outside the momentum, as in PyTorch."""
    shared: dict[str, Any] = {
      "weight_decay": self.weight_decay,
      "momentum": _MOMENTUM,
      "nesterov": self.nesterov,
      "mask": lambda params: jax.tree.map(lambda _: True, params),
      "lr_in_momentum": False,
    }
    if self.lars:
      return optim.lars(
        schedule, trust_coefficient=_TRUST_COEFFICIENT, **shared
      )
    return optim.sgd(schedule, **shared)

  def init(self, key: jax.Array, num_features: int, num_classes: int) -> Any:
    """Draws the layer: {"kernel" [d, K], "bias" [K]} float32."""
    draw = jax.nn.initializers.lecun_normal()
    if self.init_std is not None:
      draw = jax.nn.initializers.normal(self.init_std)
    return {
      "kernel": draw(key, (num_features, num_classes), jnp.float32),
      "bias": jnp.zeros(num_classes, jnp.float32),
    }


# By name, which is that of --protocol and of the rows of results.json.
PROTOCOLS = {
  "linear_moco": LinearProtocol(
    paper="MoCo v2",
    batch_size=256,
    epochs=100,
    base_learning_rate=30.0,
    schedule="drops",
    drops=(60, 80),
  ),
  "linear_simsiam": LinearProtocol(
    paper="SimSiam",
    batch_size=4096,
    epochs=90,
    base_learning_rate=0.1,
    schedule="epoch_cosine",
    lars=True,
  ),
  "linear_swav": LinearProtocol(
    paper="SwAV",
    batch_size=256,
    epochs=100,
    base_learning_rate=0.3,
    schedule="epoch_cosine",
    weight_decay=1e-6,
  ),
  "linear_byol": LinearProtocol(
    paper="BYOL",
    batch_size=1024,
    epochs=80,
    base_learning_rate=0.2,
    schedule="step_cosine",
    nesterov=True,
    init_std=None,
  ),
}


def check(name: str, *, test: str | None = None) -> None:
  """Refuses a --protocol that does not exist, or with --test.

  Raises:
    errors.InputError: lists the names, or says what to do.
  """
  if name not in PROTOCOLS:
    raise errors.InputError(
      f"--protocol={name} is not known: choose {', '.join(PROTOCOLS)}. The "
      "others are measured without --protocol."
    )
  if test is not None:
    raise errors.InputError(
      f"--protocol={name} trains on the labelled images of the run, which "
      f"--test={test} does without: give the images as "
      f"--config.data.test_dir={test} instead."
    )
