"""Encoders: a trunk, a projection head and an optional prediction head.

Examples:
  >>> encoder = create(config.model)
  >>> variables = encoder.init(key, images, train=False)
  >>> (h, z), updates = encoder.apply(
  ...   variables, images, train=True, mutable=["batch_stats"]
  ... )
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.config import fields
from paws_jax.models import batch_norm
from paws_jax.models import efficientnet_lite
from paws_jax.models import heads
from paws_jax.models import resnet
from paws_jax.models import small_resnet
from paws_jax.models import vit
from paws_jax.models import wide_resnet
from paws_jax.models.encoder import Encoder as Encoder

_Trunk = Callable[[config_lib.Model, batch_norm.LayerSettings], nn.Module]


def _resnet(*stage_sizes: int, stem_width: int = 64) -> _Trunk:
  def build(
    config: config_lib.Model, settings: batch_norm.LayerSettings
  ) -> nn.Module:
    return resnet.ResNet(
      stage_sizes=stage_sizes,
      stem_width=stem_width * config.width,
      zero_init_residual=config.zero_init_residual,
      settings=settings,
    )

  return build


def _small_resnet(
  num_stages: int, *, stem_width: int = 16, **options: Any
) -> _Trunk:
  def build(
    config: config_lib.Model, settings: batch_norm.LayerSettings
  ) -> nn.Module:
    return small_resnet.SmallResNet(
      stem_width=stem_width * config.width,
      num_stages=num_stages,
      zero_init_residual=config.zero_init_residual,
      settings=settings,
      **options,
    )

  return build


def _wide_resnet(depth: int) -> _Trunk:
  def build(
    config: config_lib.Model, settings: batch_norm.LayerSettings
  ) -> nn.Module:
    return wide_resnet.WideResNet(
      depth=depth,
      width=config.width,
      final_momentum=config.final_bn_momentum,
      settings=settings,
    )

  return build


def _efficientnet_lite(stages: tuple[efficientnet_lite.Stage, ...]) -> _Trunk:
  def build(
    config: config_lib.Model, settings: batch_norm.LayerSettings
  ) -> nn.Module:
    return efficientnet_lite.EfficientNetLite(
      stages=stages, width=config.width, settings=settings
    )

  return build


def _vit(shape: vit.Shape) -> _Trunk:
  def build(
    config: config_lib.Model, settings: batch_norm.LayerSettings
  ) -> nn.Module:
    return vit.ViT(shape=shape.widened(config.width), settings=settings)

  return build


# What `model.name` may be: builds the trunk, at `model.width`.
ENCODERS: Mapping[str, _Trunk] = {
  "resnet50": _resnet(3, 4, 6, 3),
  "resnet101": _resnet(3, 4, 23, 3),
  "resnet200": _resnet(3, 24, 36, 3),
  # 32,996 parameters with 3 channels: for tests.
  "resnet_tiny": _resnet(1, 1, 1, 1, stem_width=4),
  # For images of 8 to 32 pixels on a CPU; 16 channels at the stem.
  "small_resnet": _small_resnet(2),
  "small_resnet3": _small_resnet(3),
  # ResNet-18 with a 3x3 stem, for images of 32 pixels.
  "resnet18_cifar": _small_resnet(4, stem_width=64, blocks=2, keep_first=True),
  "wide_resnet10": _wide_resnet(10),
  "wide_resnet16": _wide_resnet(16),
  "wide_resnet28": _wide_resnet(28),
  "wide_resnet40": _wide_resnet(40),
  # With public ImageNet weights: `model.init_from` of the same name.
  **{n: _efficientnet_lite(s) for n, s in efficientnet_lite.STAGES.items()},
  **{name: _vit(shape) for name, shape in vit.SHAPES.items()},
}


def _default_dtype(config: config_lib.Model) -> str:
  """Returns the dtype of activations that a recipe names."""
  if config.dtype != "auto":
    return config.dtype
  on_accelerator = jax.default_backend() in ("gpu", "tpu")
  return "bfloat16" if on_accelerator else "float32"


def create(
  section: config_lib.Model | Mapping[str, Any],
  *,
  axis_name: batch_norm.AxisName = None,
  group_axis_name: batch_norm.AxisName = None,
  num_groups: int = 1,
  chunking: Any = None,
  dtype: Any = None,
  features_of: tuple[int, int, int] | None = None,
) -> Encoder:
  """Builds an encoder from section `model` of a recipe.

  Args:
    section: `config.Model`, or its fields.
    axis_name: mesh axes over which BatchNorm shares statistics when training
      inside `jax.shard_map`; None elsewhere, also under plain `jax.jit`.
    group_axis_name: further mesh axes that separate BatchNorm groups.
    num_groups: BatchNorm groups of a device when training.
    chunking: of the encoder.
    dtype: dtype of activations instead of that of `section`. Parameters are
      float32, or float64 if this is.
    features_of: see `Encoder`.

  Returns:
    The flax module.

  Raises:
    TypeError: `section` has an unknown field.
    ValueError: a field is out of its range.
  """
  config = fields.build(config_lib.Model, section, "model")
  fields.check(config, "model")
  if config.name not in ENCODERS:
    raise errors.InputError(
      f"model.name is {config.name!r}; known are {', '.join(ENCODERS)}."
    )
  if config.zero_init_residual and config.name.startswith("wide_"):
    raise errors.InputError(
      f"model.zero_init_residual is True but model.name is {config.name!r}, "
      "whose blocks do not end in a BatchNorm: set it to False."
    )
  dtype = jnp.dtype(_default_dtype(config) if dtype is None else dtype)
  settings = batch_norm.LayerSettings(
    momentum=config.bn_momentum,
    dtype=dtype,
    param_dtype=jnp.promote_types(dtype, jnp.float32),
    axis_name=axis_name,
    group_axis_name=group_axis_name,
    num_groups=num_groups,
  )
  trunk = ENCODERS[config.name](config, settings)
  return Encoder(
    trunk=trunk,
    projection=_projection(config, settings, trunk.num_features),
    prediction=_prediction(config, settings),
    freeze_bn=config.freeze_bn,
    freeze_trunk=config.trunk == "frozen",
    features_of=features_of,
    chunking=chunking,
  )


def _projection(
  config: config_lib.Model,
  settings: batch_norm.LayerSettings,
  num_features: int,
) -> heads.ProjectionHead | None:
  """Builds the projection head of a recipe, if it has one."""
  if not config.projection_layers:
    return None
  return heads.ProjectionHead(
    hidden_dim=config.projection_hidden_dim or num_features,
    output_dim=config.output_dim,
    settings=settings,
    num_layers=config.projection_layers,
    norm=config.projection_norm,
    bias=config.projection_bias,
    final_norm=config.projection_final_norm,
  )


def _prediction(
  config: config_lib.Model, settings: batch_norm.LayerSettings
) -> heads.PredictionHead | heads.ProjectionHead | None:
  """Builds the prediction head of a recipe, if it has one."""
  if not config.prediction_head:
    return None
  if not config.prediction_hidden_dim:
    return heads.PredictionHead(output_dim=config.output_dim, settings=settings)
  return heads.ProjectionHead(
    hidden_dim=config.prediction_hidden_dim,
    output_dim=config.output_dim,
    settings=settings,
    num_layers=2,
    bias=config.prediction_bias,
  )
