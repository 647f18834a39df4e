"""What a message about channels advises, on both pipelines."""

import re

import numpy as np
import pytest
from PIL import Image

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.data import load_dataset


def _folder(root, channels):
  shape = (16, 16) if channels == 1 else (16, 16, 3)
  for name in ("a/0", "a/1", "b/0", "b/1"):
    path = root / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, 99, np.uint8)).save(path)
  return {
    "data.source": "folder",
    "data.pipeline": "host",
    "data.dir": str(root),
    "data.canvas_size": 32,
    "data.labels_per_class": 0,
  }


@pytest.mark.parametrize(
  ("kind", "given", "channels"),
  [("grey files", 1, 3), ("files", 1, 3), ("files", 2, 3), ("digits", 3, 1)],
)
def test_the_advice_about_channels_works(tmp_path, kind, given, channels):
  config = config_lib.base()
  fields = {"data.source": "digits"}
  if kind != "digits":
    fields = _folder(tmp_path, 1 if kind == "grey files" else 3)
  fields |= {f"views.{name}": (0.3,) * given for name in ("mean", "std")}
  fields |= {"views.eval_resize": 8, "support.with_replacement": True}
  fields |= {f"views.{view}.size": 8 for view in ("large", "small")}

  def load():
    config.update_from_flattened_dict(fields)
    recipe = config_lib.resolve(config)
    return load_dataset.load(recipe.data, recipe.views)

  with pytest.raises(
    errors.InputError, match=f"has {channels} channels.*one per channel"
  ) as refusal:
    load()
  assert ("grey files are read in color" in str(refusal.value)) == (
    channels == 3
  )
  advice = re.findall(r"(views\.\w+)=\(([^)]*)\)", str(refusal.value))
  for name, values in advice:
    fields[name] = tuple(float(v) for v in values.split(",") if v.strip())
  assert len(advice) == 2
  assert load()
