"""A classifier as one function of its weights and of images, to be exported."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from paws_jax import augment
from paws_jax import errors
from paws_jax import losses
from paws_jax import models
from paws_jax.augment import resample
from paws_jax.classifier import classifier as classifier_lib
from paws_jax.classifier import preprocessing as preprocessing_lib
from paws_jax.classifier import summary
from paws_jax.runs import provenance

# What every artifact is made for, whatever machine it is made on.
PLATFORMS = ("cpu", "cuda", "tpu")
PROBABILITIES, EMBEDDINGS = "probabilities", "embeddings"

Weights = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
  """What the artifacts of all targets are made from.

  Attributes:
    apply: of (weights, images uint8 [b, H, W, Ch]); gives {"probabilities":
      float32 [b, K], "embeddings": float32 [b, D]}. Pure; b may be symbolic.
    weights: arrays by name, "encoder/params/...", "bank/..." or "head/...".
    classifier: what it is the program of.
    description: of the classifier, for a reader of the artifact; JSON.
    interface: inputs and outputs of `apply`; JSON.
  """

  apply: Callable[[Weights, jax.Array], dict[str, jax.Array]]
  weights: dict[str, np.ndarray]
  classifier: classifier_lib.Classifier
  description: dict[str, Any]
  interface: dict[str, Any]

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """(H, W, Ch)."""
    return self.classifier.preprocessing.shape


def create(classifier: classifier_lib.Classifier) -> Program:
  """Makes the program of a classifier.

  Weights stay arguments: as constants inside the program they would be compiled
  with it (docs/export.md says what that costs).

  Args:
    classifier: what to make it of.

  Raises:
    ValueError: for a bank whose supports are all of one class.
    errors.NonFiniteError: for weights that are not finite.
  """
  weights = _weights(classifier)
  _check(classifier, weights)
  return Program(
    apply=_apply(classifier),
    weights=weights,
    classifier=classifier,
    description=_describe(classifier, weights),
    interface=_interface(classifier, weights),
  )


def _weights(classifier: classifier_lib.Classifier) -> dict[str, np.ndarray]:
  """All arrays by name, and of bank and head only the one that decides."""
  deciding = (
    {
      "bank/embeddings": classifier.support_bank.embeddings,
      "bank/labels": classifier.support_bank.labels,
    }
    if classifier.head is None
    else {
      "head/kernel": classifier.head.kernel,
      "head/bias": classifier.head.bias,
    }
  )
  encoder = traverse_util.flatten_dict(dict(classifier.variables), sep="/")
  named = {f"encoder/{name}": array for name, array in encoder.items()}
  return {k: np.asarray(v) for k, v in sorted((named | deciding).items())}


def _check(classifier: classifier_lib.Classifier, weights: Weights) -> None:
  """Refuses what would give one answer to every image, or none."""
  bad = [name for name, w in weights.items() if not np.isfinite(w).all()]
  if bad:
    raise errors.NonFiniteError(
      f"{len(bad)} of {len(weights)} arrays are not finite, first {bad[0]}: "
      "the encoder has diverged, or its file is damaged. Train it again."
    )
  classifier.check_support_bank()


def _apply(
  classifier: classifier_lib.Classifier,
) -> Callable[..., dict[str, jax.Array]]:
  """`Program.apply`.

  Activations have the dtype of the recipe. "auto" is settled where the program
  runs and not here, as it would be in `models.create`: float32 on a CPU,
  bfloat16 elsewhere.
  """
  dtype = classifier.model["dtype"]
  if dtype != "auto":
    return with_dtype(classifier, dtype)
  on_cpu = with_dtype(classifier, "float32")
  elsewhere = with_dtype(classifier, "bfloat16")

  def apply(
    weights: Mapping[str, jax.Array], images: jax.Array
  ) -> dict[str, jax.Array]:
    return jax.lax.platform_dependent(
      dict(weights), images, cpu=on_cpu, default=elsewhere
    )

  return apply


def with_dtype(
  classifier: classifier_lib.Classifier, dtype: str
) -> Callable[..., dict[str, jax.Array]]:
  """Makes `Program.apply` with activations of one dtype on all platforms."""
  encoder = models.create(classifier.model, dtype=dtype)
  settings, head = classifier.preprocessing, classifier.head
  num_classes = len(classifier.class_names)
  temperature = classifier.temperature

  def apply(
    weights: Mapping[str, jax.Array], images: jax.Array
  ) -> dict[str, jax.Array]:
    tree = traverse_util.unflatten_dict(dict(weights), sep="/")
    views = evaluation_view(settings, images)
    if head is not None:
      features: Any = encoder.apply(
        tree["encoder"],
        views,
        train=False,
        num_projection_layers=1,
        method="features",
      )
      logits = jnp.matmul(
        features, tree["head"]["kernel"], precision=jax.lax.Precision.HIGHEST
      )
      probs = jax.nn.softmax(logits + tree["head"]["bias"][None, :], axis=-1)
      return {PROBABILITIES: probs, EMBEDDINGS: features}
    embeddings: Any = encoder.apply(tree["encoder"], views, train=False)
    _, rows = embeddings
    probs = losses.soft_nearest_neighbours(
      rows,
      tree["bank"]["embeddings"],
      jax.nn.one_hot(tree["bank"]["labels"], num_classes, dtype=rows.dtype),
      temperature=temperature,
    )
    return {PROBABILITIES: probs, EMBEDDINGS: rows}

  return apply


def evaluation_view(
  settings: preprocessing_lib.Preprocessing, images: jax.Array
) -> jax.Array:
  """What lies between uint8 images and the encoder, for any batch size.

  Args:
    settings: of the classifier.
    images: uint8 [b, *settings.shape]; b may be symbolic.

  Returns:
    float32 [b, S, S, Ch], normalized; S is `settings.large_size`.
  """
  count, side = images.shape[0], settings.image_size
  if side and images.shape[1:3] != (side, side):
    whole = jnp.asarray([[0, 0, *images.shape[1:3]]], jnp.int32)
    boxes = jnp.broadcast_to(whole, (count, 4))
    images = jnp.round(resample.crop_and_resize(images, boxes, size=side))
  view = settings.on_device
  size = jnp.asarray([images.shape[1:3]], jnp.int32)
  crops = augment.evaluation_view(
    images,
    jnp.broadcast_to(size, (count, 2)),
    resize=view.eval_resize,
    size=view.eval_size,
  )
  return augment.normalize(crops, view.mean, view.std)


@contextlib.contextmanager
def without_source_paths() -> Iterator[None]:
  """Keeps this machine's paths out of programs that are lowered meanwhile.

  Otherwise every operation carries the traceback that made it. Programs lowered
  here are also the same, byte by byte, wherever they are lowered from.
  """
  name = "jax_traceback_in_locations_limit"
  before = getattr(jax.config, name)
  jax.config.update(name, 0)
  try:
    yield
  finally:
    jax.config.update(name, before)


def _describe(
  classifier: classifier_lib.Classifier, weights: Weights
) -> dict[str, Any]:
  """What is so whatever the target."""
  votes = classifier.head is None
  params = [w for k, w in weights.items() if k.startswith("encoder/params/")]
  return {
    "class_names": list(classifier.class_names),
    "decides": (
      f"a vote of {len(classifier.support_bank)} labelled images"
      if votes
      else summary.head_words(classifier)
    ),
    "temperature": float(classifier.temperature) if votes else None,
    "num_parameters": sum(w.size for w in params),
    "model": dict(classifier.model),
    "preprocessing": classifier.preprocessing.as_json(),
    "origin": dict(classifier.origin),
    "versions": provenance.versions(),
  }


def _interface(
  classifier: classifier_lib.Classifier, weights: Weights
) -> dict[str, Any]:
  """Describes the inputs and outputs."""
  settings, dtype = classifier.preprocessing, classifier.model["dtype"]
  height, width, channels = settings.shape
  return {
    "input": {
      "name": "images",
      "shape": ["b", height, width, channels],
      "dtype": "uint8",
      "channels": "RGB" if channels == 3 else "grey",
      "before": _before(settings),
      "inside": "what is left of the evaluation crop, and the normalization",
    },
    "outputs": {
      PROBABILITIES: {
        "shape": ["b", len(classifier.class_names)],
        "dtype": "float32",
        "columns": "class_names",
      },
      EMBEDDINGS: {
        "shape": ["b", _embedding_size(weights)],
        "dtype": "float32",
      },
    },
    "activations": (
      {"cpu": "float32", "cuda": "bfloat16", "tpu": "bfloat16"}
      if dtype == "auto"
      else dict.fromkeys(PLATFORMS, dtype)
    ),
  }


def _embedding_size(weights: Weights) -> int:
  """D, which bank and head know."""
  if "head/kernel" in weights:
    return int(weights["head/kernel"].shape[0])
  return int(weights["bank/embeddings"].shape[1])


def _before(settings: preprocessing_lib.Preprocessing) -> str:
  """What a caller has to do to an image, in words."""
  height, width, _ = settings.shape
  if settings.on_disk:
    return (
      "turn it upright as its EXIF entry says, convert it to RGB, resize it "
      f"with Pillow's bilinear filter until its short side is "
      f"{settings.eval_resize}, and cut out the central {height} x {width} "
      "pixels"
    )
  return (
    f"resize it with Pillow's bilinear filter until it covers {height} x "
    f"{width} pixels, and cut out the middle; an image of that size stays as "
    "it is"
  )
