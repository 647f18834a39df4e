"""A classifier with random weights, as small as it goes, and its images."""

import jax
import numpy as np

from paws_jax import config as config_lib
from paws_jax import models
from paws_jax.classifier import classifier
from paws_jax.classifier import predictions
from paws_jax.classifier import preprocessing
from paws_jax.classifier import support_bank as support_bank_lib

CLASSES = ("ant", "bee", "cow")
SUPPORTS = 7


def settings(**changes):
  """Grey images of 9 x 12 in memory: resized to 8 x 10, of which 8 x 8."""
  fields = {
    "on_disk": False,
    "shape": (9, 12, 1),
    "image_size": 0,
    "eval_resize": 8,
    "large_size": 8,
    "mean": (0.3,),
    "std": (0.4,),
    "max_pixels": 10**6,
  }
  return preprocessing.Preprocessing(**fields | changes)


def _weights(random, leaf):
  """Drawn without JAX, which would compile for seconds; variances positive."""
  fan_in = max(int(np.prod(leaf.shape[:-1])), 1)
  drawn = random.normal(size=leaf.shape) / np.sqrt(fan_in)
  return np.asarray(drawn if leaf.ndim > 1 else np.abs(drawn) + 0.5, leaf.dtype)


def recipe(dtype="float32"):
  """Whose run would have such a classifier."""
  config = config_lib.base().lock()
  config.model.name = "wide_resnet10"
  config.model.output_dim = 6
  config.model.prediction_head = False
  config.model.dtype = dtype
  return config


def make(seed=0, *, head=False, class_head=False, dtype="float32", **changes):
  """A classifier of random weights and supports; `changes`: to `settings`.

  With a `head` that was fine-tuned, or one that was trained on the trunk.
  """
  section, head = dict(recipe(dtype).model), head or class_head
  if class_head:
    section["projection_layers"] = 0
  prepared = settings(**changes)
  side, channels = prepared.large_size, prepared.channels
  encoder = models.create(section)
  shapes = jax.eval_shape(
    lambda images: encoder.init(jax.random.key(0), images, train=False),
    np.zeros((1, side, side, channels), np.float32),
  )
  random = np.random.default_rng(seed)
  dim = 64 if head else 6
  return classifier.Classifier(
    class_names=CLASSES,
    temperature=0.5,
    support_bank=support_bank_lib.SupportBank(
      embeddings=random.normal(size=(SUPPORTS, dim)).astype(np.float32),
      labels=np.arange(SUPPORTS, dtype=np.int32) % len(CLASSES),
      names=tuple(f"image {i}" for i in range(SUPPORTS)),
      thumbnails=np.zeros((SUPPORTS, 4, 4, channels), np.uint8),
    ),
    model=section,
    variables=jax.tree.map(lambda leaf: _weights(random, leaf), dict(shapes)),
    preprocessing=prepared,
    head=predictions.Head(
      # Small, so that no class is certain.
      kernel=random.normal(0, 0.01, (dim, len(CLASSES))).astype(np.float32),
      bias=random.normal(size=len(CLASSES)).astype(np.float32),
    )
    if head
    else None,
  )


def pixels(shape, count, seed=1):
  """Noise; some images are brighter."""
  random = np.random.default_rng(seed)
  noise = random.uniform(size=(count, *shape))
  brightness = np.linspace(0.1, 1, count)[:, None, None, None]
  return np.round(255 * brightness * noise).astype(np.uint8)
