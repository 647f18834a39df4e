"""FLOPs of a step against those counted on paper, in the traced program."""

import jax
import jax.numpy as jnp
import pytest

from paws_jax import config as config_lib
from paws_jax import models
from paws_jax.config import recipe_files
from paws_jax.plan import abstract_step
from paws_jax.plan import traced_costs

# Views with gradient, and views of the target network, of each image.
VIEWS = {
  "moco": (1, 1),
  "byol": (2, 2),
  "simsiam": (2, 0),
  "msf": (1, 1),
  "cmsf": (1, 1),
}
# Those of a ResNet-50 take ten seconds to trace, and compile nothing.
RECIPES = ["moco:cpu", "byol:cpu"] + [
  pytest.param(recipe, marks=pytest.mark.slow)
  for recipe in (
    "simsiam:cpu",
    "msf:cpu",
    "cmsf:cpu",
    "moco",
    "byol:100ep",
    "cmsf:second_query",
  )
]


def _forward(encoder, shape):
  """FLOPs of the encoder for images of a shape, in training mode."""
  key = jax.random.key(0)
  variables = jax.eval_shape(
    lambda: encoder.init(key, jnp.zeros((1, *shape[1:])), train=False)
  )

  def apply(variables, images):
    return encoder.apply(variables, images, train=True, mutable=["batch_stats"])

  images = jax.ShapeDtypeStruct(shape, jnp.float32)
  return traced_costs.flops(jax.make_jaxpr(apply)(variables, images).jaxpr)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_step_costs_what_its_networks_do(recipe):
  config = config_lib.resolve(recipe_files.load(recipe))
  step = abstract_step.create(config, jax.devices()[:1])
  actual = traced_costs.flops(step.trace().jaxpr.jaxpr)
  side = config.views.crops["large"].size
  shape = (config.train.batch_size, side, side, len(config.views.mean))
  encoder = models.create(config.model)
  online = _forward(encoder, shape)
  target = _forward(encoder.clone(prediction=None), shape)
  queries, targets = VIEWS[config.method.name]
  # A backward pass costs two forward passes.
  paper = queries * 3 * online + targets * target
  assert 0.95 * paper < actual <= 1.05 * paper
