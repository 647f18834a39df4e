"""A recipe: every section, made from a ConfigDict once and checked."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from typing import Any

import ml_collections

from paws_jax.config import checks
from paws_jax.config import fields
from paws_jax.config import methods
from paws_jax.config import views as views_lib
from paws_jax.config.checkpoint import Checkpoint
from paws_jax.config.data import Data
from paws_jax.config.eval import Eval
from paws_jax.config.finetune import Finetune
from paws_jax.config.log import Log
from paws_jax.config.model import Model
from paws_jax.config.optim import Optim
from paws_jax.config.support import Support
from paws_jax.config.train import Train
from paws_jax.config.views import Views


@dataclasses.dataclass(frozen=True)
class Recipe(fields.Section):
  """All that a run depends on; each part of the program gets its section."""

  # Drives initialization, sample order, support draws and augmentation.
  seed: int = fields.field(0, fields.SEED)
  data: Data = dataclasses.field(default_factory=Data)
  views: Views = dataclasses.field(default_factory=Views)
  support: Support = dataclasses.field(default_factory=Support)
  model: Model = dataclasses.field(default_factory=Model)
  method: methods.Method = dataclasses.field(
    default_factory=lambda: methods.default(methods.DEFAULT)
  )
  optim: Optim = dataclasses.field(default_factory=Optim)
  train: Train = dataclasses.field(default_factory=Train)
  eval: Eval = dataclasses.field(default_factory=Eval)
  checkpoint: Checkpoint = dataclasses.field(default_factory=Checkpoint)
  finetune: Finetune = dataclasses.field(default_factory=Finetune)
  log: Log = dataclasses.field(default_factory=Log)

  @property
  def allows_chunks(self) -> bool:
    """Whether `train.chunks` may be other than 1."""
    return self.method.allows_chunks and self.model.trunk != "frozen"

  def check(self) -> None:
    """Checks sections against each other."""
    checks.check_sections(self)

  def to_dict(self) -> dict[str, Any]:
    """Returns the recipe as JSON stores it: dicts, lists, numbers, strings."""
    return json.loads(json.dumps(fields.as_dict(self)))

  def to_json(self) -> str:
    """Returns the recipe as a JSON text, the same for equal recipes."""
    return json.dumps(fields.as_dict(self), sort_keys=True)


def base(method: str = methods.DEFAULT) -> ml_collections.ConfigDict:
  """Returns the defaults of every field, for a recipe to change.

  Args:
    method: name of the method whose fields section `method` has; with a class
      head the encoder has no others.
  """
  section, model = methods.default(method), Model()
  if section.class_head:
    model = Model(projection_layers=0, prediction_head=False)
  return editable(dataclasses.replace(Recipe(), method=section, model=model))


def editable(recipe: Recipe) -> ml_collections.ConfigDict:
  """Returns a recipe as a ConfigDict, for a file or flags to change."""
  config = ml_collections.ConfigDict(fields.as_dict(recipe))
  config.views = views_lib.ViewsDict(config.views)
  config.method = methods.MethodDict(config.method)
  return config


def method_section(
  name: str, values: Mapping[str, Any] | None = None
) -> ml_collections.ConfigDict:
  """Returns section `method` for another method.

  Args:
    name: of the method.
    values: a section whose values are kept where they differ from their
      defaults and the method has such a field.

  Examples:
    >>> config.method = method_section("simclr")
  """
  section, _ = methods.rebuild(values or {}, name)
  return methods.MethodDict(section)


def resolve(config: ml_collections.ConfigDict | Recipe) -> Recipe:
  """Makes a recipe of a ConfigDict and checks all fields, also together.

  What needs the data or the devices is checked where those are at hand.

  Args:
    config: the recipe, with overrides. Where it has changed `method.name` on
      its own, section `method` becomes that of the method, and a line names
      the values that are left out.

  Raises:
    UnknownFieldError: a field that a section does not have, by name.
    InputError: naming the field, its value, and what it may be.
  """
  recipe = build(config)
  fields.check(recipe, "")
  return recipe


def build(config: ml_collections.ConfigDict | Recipe) -> Recipe:
  """Makes a recipe of a ConfigDict as `resolve` does, but checks no value."""
  if isinstance(config, Recipe):
    return config
  notice = views_lib.notice(config)
  if notice:
    print(notice, file=sys.stderr)
  values = config.to_dict()
  section = config["method"]
  kept = isinstance(section, methods.MethodDict)
  values["method"] = _method(section if kept else values["method"])
  return fields.build(Recipe, values, "", title="a recipe")


def _method(values: Mapping[str, Any]) -> methods.Method:
  """Makes section `method`, of the method that it names."""
  section, dropped = methods.rebuild(values, values["name"])
  if dropped:
    print(methods.dropped_line(values["name"], dropped), file=sys.stderr)
  return methods.build(section)


def set_intervals(
  config: ml_collections.ConfigDict, steps_per_epoch: int
) -> None:
  """Evaluates a long run every 10 epochs, and saves it after each.

  Every 50th checkpoint is kept.

  Args:
    config: a recipe, which is changed.
    steps_per_epoch: of its data and batch.
  """
  config.eval.every_steps = 10 * steps_per_epoch
  config.checkpoint.every_steps = steps_per_epoch
  config.checkpoint.keep_every_steps = 50 * steps_per_epoch
