"""A linear classifier on features that are not trained any further.

Multinomial logistic regression on standardized features: the mean cross-entropy
plus λ/2 Σ W², the bias left free, minimized by SciPy's L-BFGS-B with the loss
and its gradient on the device. The problem is convex, so how it is solved does
not matter; what does is λ, which is chosen by images with a label that are left
out in turn. No other image is used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

# λ, from the strongest; each solution is where the next starts.
STRENGTHS = tuple(10.0**power for power in range(1, -5, -1))
# Where no image can be left out.
FIXED_STRENGTH = 1e-2
MOST_FOLDS = 5
# With more images than these a single fold, a fifth of them, decides.
_MANY_IMAGES = 10_000

_MOST_ITERATIONS = 500
# Of the mean loss: largest entry of the gradient, in nats.
_GRADIENT_TOLERANCE = 1e-6
# Stored steps of L-BFGS.
_MEMORY = 10


@dataclasses.dataclass(frozen=True, eq=False)
class Probe:
  """A fitted linear classifier.

  Attributes:
    kernel: float32 [d, K].
    bias: float32 [K].
    mean: [d], of the features it was fitted to.
    scale: [d], their standard deviations; 1 for features that never change.
    strength: λ.
    num_folds: parts that the images were dealt into to choose λ; 0 when λ was
      given, or no class has two and λ is FIXED_STRENGTH.
    num_left_out: images that have been left out to choose it.
  """

  kernel: np.ndarray
  bias: np.ndarray
  mean: np.ndarray
  scale: np.ndarray
  strength: float
  num_folds: int
  num_left_out: int

  def probabilities(self, features: np.ndarray) -> np.ndarray:
    """Of the classes, float32 [n, K], for features [n, d]."""
    rows = (features - self.mean) / self.scale
    return np.exp(_log_softmax(rows @ self.kernel + self.bias))


def fit(
  features: np.ndarray,
  labels: np.ndarray,
  *,
  num_classes: int,
  seed: int,
  copies: np.ndarray | None = None,
  strength: float | None = None,
) -> Probe:
  """Chooses λ, unless it is given, then fits to all images.

  Args:
    features: [n, d], finite.
    labels: [n] integers in [0, num_classes).
    num_classes: K.
    seed: of the order in which a class's images are dealt into folds.
    copies: see `deal`.
    strength: λ; None chooses it.

  Raises:
    ValueError: for features that are not finite, or labels that do not fit.
  """
  features = np.asarray(features, np.float32)
  labels = np.asarray(labels)
  _check(features, labels, num_classes)
  folds = np.full(len(labels), -1)
  if strength is None:
    folds = deal(labels, seed=seed, copies=copies)
  num_folds = int(folds.max()) + 1
  if num_folds:
    strength = _choose(features, labels, folds, num_classes=num_classes)
  elif strength is None:
    strength = FIXED_STRENGTH
  everything = np.ones(len(labels), bool)
  mean, scale = _statistics(features)
  ((kernel, bias),) = _path(
    (features - mean) / scale,
    labels,
    everything,
    (strength,),
    num_classes=num_classes,
  )
  return Probe(
    kernel=kernel,
    bias=bias,
    mean=mean,
    scale=scale,
    strength=strength,
    num_folds=num_folds,
    num_left_out=int(_left_out(folds).sum()),
  )


def deal(
  labels: np.ndarray, *, seed: int, copies: np.ndarray | None = None
) -> np.ndarray:
  """Deals the images of every class into folds, in a random order.

  Args:
    labels: int [n].
    seed: of the order.
    copies: int [n], place of the first image with the same contents, which are
      all in one fold; None: there are no copies.

  Returns:
    int [n]: the fold in which an image is left out, from 0; as many folds as
    the largest class has different images, at most MOST_FOLDS. -1 for the only
    image of its class, which is never left out.
  """
  order = np.random.default_rng(seed).permutation(len(labels))
  if copies is None:
    copies = np.arange(len(labels))
  order = order[copies[order] == order]
  folds = np.full(len(labels), -1)
  for label in np.unique(labels):
    mine = order[labels[order] == label]
    if len(mine) > 1:
      folds[mine] = np.arange(len(mine)) % MOST_FOLDS
  return folds[copies]


def _check(features: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
  if len(features) != len(labels) or not len(labels):
    raise ValueError(
      f"{len(features)} rows of features but {len(labels)} labels: give one "
      "label per row, and at least one."
    )
  bad = int((~np.isfinite(features)).any(axis=-1).sum())
  if bad:
    raise ValueError(
      f"{bad} of {len(features)} rows of features are not finite: the encoder "
      "has diverged or is of another recipe."
    )
  if not 0 <= labels.min() <= labels.max() < num_classes:
    raise ValueError(
      f"labels lie in [{labels.min()}, {labels.max()}], outside [0, "
      f"{num_classes})."
    )


def _left_out(folds: np.ndarray) -> np.ndarray:
  """Bool [n]: images that are left out at some time."""
  return folds == 0 if len(folds) > _MANY_IMAGES else folds >= 0


def _statistics(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Mean and scale of each feature, float32 [d] each."""
  mean = features.mean(axis=0, dtype=np.float64)
  scale = features.std(axis=0, dtype=np.float64)
  # Rounding makes a constant feature vary by this.
  constant = scale <= 1e-6 * np.maximum(np.abs(mean), 1e-6)
  scale = np.where(constant, 1, scale)
  return mean.astype(np.float32), scale.astype(np.float32)


def _choose(
  features: np.ndarray,
  labels: np.ndarray,
  folds: np.ndarray,
  *,
  num_classes: int,
) -> float:
  """The λ with the least mean log loss over images that were left out."""
  left_out = _left_out(folds)
  losses = np.zeros(len(STRENGTHS))
  for fold in np.unique(folds[left_out]):
    out = left_out & (folds == fold)
    mean, scale = _statistics(features[~out])
    rows = (features - mean) / scale
    path = _path(rows, labels, ~out, STRENGTHS, num_classes=num_classes)
    for i, (kernel, bias) in enumerate(path):
      log_probabilities = _log_softmax(rows[out] @ kernel + bias)
      losses[i] -= log_probabilities[np.arange(out.sum()), labels[out]].sum()
  # Of equals the strongest.
  return STRENGTHS[int(losses.argmin())]


def _path(
  rows: np.ndarray,
  labels: np.ndarray,
  used: np.ndarray,
  strengths: tuple[float, ...],
  *,
  num_classes: int,
) -> list[tuple[np.ndarray, np.ndarray]]:
  """Solutions (kernel, bias) for each λ, each from where the last one ended.

  Args:
    rows: [n, d] standardized features.
    labels: [n].
    used: bool [n]; other rows weigh nothing, so that one compiled program
      serves all folds.
    strengths: λ.
    num_classes: K.
  """
  shape = (rows.shape[1] + 1, num_classes)
  weights = (used / used.sum()).astype(np.float32)
  loss = _loss_of(jnp.asarray(rows), jnp.asarray(labels), jnp.asarray(weights))
  flat, solutions = np.zeros(shape).ravel(), []
  for strength in strengths:
    flat = _minimize(loss, flat, shape, strength)
    solved = flat.reshape(shape).astype(np.float32)
    solutions.append((solved[:-1], solved[-1]))
  return solutions


_Loss = Callable[[np.ndarray, float], tuple[jax.Array, jax.Array]]


def _loss_of(rows: jax.Array, labels: jax.Array, weights: jax.Array) -> _Loss:
  return lambda w, strength: _loss(w, strength, rows, labels, weights)


def _minimize(
  loss: _Loss, start: np.ndarray, shape: tuple[int, int], strength: float
) -> np.ndarray:
  """The flat float64 parameters with the least loss."""
  from scipy import optimize

  def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
    value, gradient = loss(flat.reshape(shape).astype(np.float32), strength)
    return float(value), np.asarray(gradient, np.float64).ravel()

  return optimize.minimize(
    value_and_gradient,
    start,
    method="L-BFGS-B",
    jac=True,
    # In float32 the loss itself cannot tell steps this small apart.
    options={
      "maxiter": _MOST_ITERATIONS,
      "maxcor": _MEMORY,
      "gtol": _GRADIENT_TOLERANCE,
      "ftol": 1e-7,
    },
  ).x


@jax.jit
@jax.value_and_grad
def _loss(
  parameters: jax.Array,
  strength: float,
  rows: jax.Array,
  labels: jax.Array,
  weights: jax.Array,
) -> jax.Array:
  """The objective; `parameters` [d + 1, K] has the bias in its last row."""
  kernel, bias = parameters[:-1], parameters[-1:]
  logits = jnp.matmul(rows, kernel, precision=jax.lax.Precision.HIGHEST) + bias
  log_probabilities = jax.nn.log_softmax(logits)
  chosen = jnp.take_along_axis(log_probabilities, labels[:, None], axis=1)
  return -weights @ chosen[:, 0] + strength / 2 * jnp.sum(kernel**2)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
  logits = logits - logits.max(axis=-1, keepdims=True)
  return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
