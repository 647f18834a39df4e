"""The example of docs/adding_a_method.md is a method."""

import dataclasses
import pathlib
import re
from typing import Any

import jax.numpy as jnp

from paws_jax import losses
from paws_jax.methods import encoding
from paws_jax.parallel import mesh
from tests import toy_method

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "adding_a_method.md"


def test_the_example_is_the_same_on_four_devices():
  (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
  names = {
    "dataclasses": dataclasses,
    "Any": Any,
    "jnp": jnp,
    "losses": losses,
    "method": encoding,
    "sharding": mesh,
    "__name__": __name__,
  }
  exec(code, names)
  results = []
  for num_devices, axis_name in ((1, None), (4, mesh.AXES)):
    built = toy_method.create(name="simclr", axis_name=axis_name)
    example = names["Attraction"](
      **{
        field.name: getattr(built, field.name)
        for field in dataclasses.fields(built)
      }
    )
    views = toy_method.padded(toy_method.make_views(num_small=0), 8)
    results.append(toy_method.measure(example, views, num_devices=num_devices))
  toy_method.assert_same(*results)
  assert set(results[0]) == {"loss", "distance"}
  assert set(example.shown_losses) <= set(results[0])
  assert 0 < results[0]["distance"] < 4
