"""Recipes of methods that train a classifier on the trunk, on digits."""

from paws_jax import config as config_lib
from paws_jax import methods

# So that pseudo-labels count after few steps.
SURE = {
  "fixmatch": {"threshold": 0.3},
  "uda": {"threshold": 0.3, "tsa": "linear"},
  "mpl": {"threshold": 0.3},
  "pseudo_label": {"threshold": 0.3},
}


def change(config, name):
  """Turns a recipe with large crops into one of such a method, in place."""
  config.method = config_lib.method_section(name)
  config.method.update(SURE.get(name, {}))
  config.model.projection_layers = 0
  config.model.prediction_head = False
  large = config.views.large.to_dict()
  config.views.large.count = config.views.small.count = 0
  config.views.support = config_lib.view_spec(**large)
  for view, count in methods.METHODS[name].view_counts.items():
    config.views[view] = config_lib.view_spec(**large | {"count": count})
    if view == "strong":
      config.views[view].rand_augment = "digits"
  config.support.label_smoothing = 0.0
  config.support.sampling = "uniform"
  config.support.batch_size = 10
  config.train.batch_size = 240
