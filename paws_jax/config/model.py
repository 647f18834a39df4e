"""Section `model` of a recipe."""

from __future__ import annotations

import dataclasses

from paws_jax import errors
from paws_jax.config import fields

# Names of public weights that `init_from` may be; weights/pretrained.py has
# their packages.
PRETRAINED = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
_BIASES = ("all", "hidden", "last", "none")


@dataclasses.dataclass(frozen=True)
class Model(fields.Section):
  """The encoder; its name is checked where encoders are built."""

  # One of models.ENCODERS: resnet50, wide_resnet28, ...
  name: str = fields.field("resnet50")
  # Multiplies every width of the encoder.
  width: int = fields.field(1, fields.between(1, 1024))
  # Units of the hidden layers of the projection head; 0: the encoder's width.
  projection_hidden_dim: int = fields.field(0, fields.between(0, 2**20))
  # Dimension D of the embeddings.
  output_dim: int = fields.field(2048, fields.between(1, 2**20))
  # Dense layers of the projection head, the last one included; 0: there is no
  # such head, for methods that train a classifier on the trunk.
  projection_layers: int = fields.field(
    3, ("0, or at least 2 and at most 16", lambda x: x == 0 or 2 <= x <= 16)
  )
  # Whether BatchNorm follows its hidden layers.
  projection_norm: bool = fields.field(True)
  # Whether a BatchNorm without scale and bias follows the last one.
  projection_final_norm: bool = fields.field(False)
  # Dense layers of the projection head with a bias: "all", "hidden", "last" or
  # "none".
  projection_bias: str = fields.field("all", fields.one_of(*_BIASES))
  # A second head after the projection head: in training for anchors and their
  # supports, not for targets; in evaluation for all.
  prediction_head: bool = fields.field(True)
  # Units of its hidden layer, which BatchNorm and ReLU follow; 0: PAWS's head,
  # a BatchNorm before a hidden layer of a quarter of the output.
  prediction_hidden_dim: int = fields.field(0, fields.between(0, 2**20))
  # Dense layers with a bias where it has such a hidden layer, as above.
  prediction_bias: str = fields.field("all", fields.one_of(*_BIASES))
  # Starts each residual block of a ResNet as the identity.
  zero_init_residual: bool = fields.field(False)
  # Share of the old value kept in a running statistic (PyTorch's 1 - m).
  bn_momentum: float = fields.field(0.9, fields.FRACTION)
  # The same for the last BatchNorm of a wide ResNet.
  final_bn_momentum: float = fields.field(0.9, fields.FRACTION)
  # Training too normalises with the running statistics, and leaves them as
  # they are: for few images, from weights that have good ones (init_from).
  freeze_bn: bool = fields.field(False)
  # "frozen": the trunk keeps the weights of init_from, and only the heads
  # learn, from features that are computed once (views.cached). "train": all.
  trunk: str = fields.field("train", fields.one_of("train", "frozen"))
  # Activations: "float32", "bfloat16" or "auto" (bfloat16 on accelerators).
  dtype: str = fields.field(
    "auto", fields.one_of("auto", "float32", "bfloat16")
  )
  # Weights that pre-training starts from: a file of PyTorch (.pth, .pth.tar,
  # .pt, .safetensors, .npz), another run's workdir, the directory of a saved
  # classifier, or the name of public weights (efficientnet_lite0, 1 or 2; they
  # are packages, docs/interop.md). "": random ones, by `seed`.
  init_from: str = fields.field("")

  def check(self) -> None:
    """Refuses a prediction head without hidden units, or without input."""
    if self.prediction_head and not self.projection_layers:
      raise errors.InputError(
        "model.prediction_head is True but model.projection_layers is 0: it "
        "follows a projection head; set it to False."
      )
    quarter = self.prediction_head and not self.prediction_hidden_dim
    if quarter and self.output_dim < 4:
      raise errors.InputError(
        f"model.output_dim is {self.output_dim} but model.prediction_head is "
        "True: it must be at least 4, because the head's hidden layer has a "
        "quarter of it; or set model.prediction_hidden_dim."
      )
