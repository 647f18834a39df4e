"""What of a recipe benchmarks/torch_side/step.py is told, and what it refuses.

Needs no PyTorch: a recipe is refused before that is loaded.
"""

from __future__ import annotations

from typing import Any

import ml_collections

from paws_jax import config as config_lib

_METHODS = ("paws", "supervised")
# Switches of section `method` that the peer implements, or that train nothing.
# Label smoothing and crops reach it as label rows and views.
_KNOWN = frozenset(
  {
    "name",
    "temperature",
    "sharpen_temperature",
    "me_max",
    "support_loss_weight",
    "health_metrics",
  }
)


def sections(config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
  """Sections `model`, `method` and `optim` for `torch_peer.Peer`.

  Defaults are PAWS as in the paper, which is what the peer does beside its
  supervised baseline: a field that it does not know may have its default and
  nothing else, so that a switch that comes later is refused, too.

  Args:
    config: a valid recipe.

  Raises:
    ValueError: naming each switch that the peer lacks, and its value.
  """
  lacking, checked = [], []
  if config.method.name in _METHODS:
    default = config_lib.base(config.method.name)
    checked = [("method", k) for k in default.method if k not in _KNOWN]
  else:
    default = config_lib.base()
    has = " and ".join(repr(name) for name in _METHODS)
    lacking.append(f"method.name is {config.method.name!r} (it has {has} only)")
  lacking += [
    f"{section}.{name} is {config[section][name]!r} (it has "
    f"{default[section][name]!r} only)"
    for section, name in (*checked, ("model", "freeze_bn"))
    if config[section][name] != default[section][name]
  ]
  if lacking:
    raise ValueError(
      "the PyTorch peer does not do what the recipe asks for: "
      f"{'; '.join(lacking)}. Change that, or use --peer=none."
    )
  return {name: dict(config[name]) for name in ("model", "method", "optim")}
