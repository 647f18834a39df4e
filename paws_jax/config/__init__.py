"""The fields of a recipe, by section, with default, type and range of each.

A recipe (`configs/*.py`) is `base()` plus its differences. `resolve` makes it a
`Recipe`, once, before a device is touched; it needs neither JAX nor the data.
All sizes are global: those of the batch and of the support set of all devices
together, never a device's share.
"""

from paws_jax.config.checkpoint import Checkpoint
from paws_jax.config.data import Data
from paws_jax.config.eval import Eval
from paws_jax.config.finetune import Finetune
from paws_jax.config.log import Log
from paws_jax.config.methods.base import Method
from paws_jax.config.model import Model
from paws_jax.config.optim import Optim
from paws_jax.config.recipe import Recipe
from paws_jax.config.recipe import base
from paws_jax.config.recipe import build
from paws_jax.config.recipe import editable
from paws_jax.config.recipe import method_section
from paws_jax.config.recipe import resolve
from paws_jax.config.recipe import set_intervals
from paws_jax.config.recipe_files import beside
from paws_jax.config.recipe_files import check_variant
from paws_jax.config.support import Support
from paws_jax.config.train import Train
from paws_jax.config.views import EvalView
from paws_jax.config.views import Views
from paws_jax.config.views import ViewSpec
from paws_jax.config.views import build as build_views
from paws_jax.config.views import support_name
from paws_jax.config.views import view_spec

# The former name of `resolve`.
validate = resolve

__all__ = [
  "Checkpoint",
  "Data",
  "Eval",
  "EvalView",
  "Finetune",
  "Log",
  "Method",
  "Model",
  "Optim",
  "Recipe",
  "Support",
  "Train",
  "ViewSpec",
  "Views",
  "base",
  "beside",
  "build",
  "build_views",
  "check_variant",
  "editable",
  "method_section",
  "resolve",
  "set_intervals",
  "support_name",
  "validate",
  "view_spec",
]
