"""SimSiam: a view predicts the other, without an average network.

  python -m paws_jax.main --config=configs/simsiam.py           # ImageNet
  python -m paws_jax.main --config=configs/simsiam.py:200ep
  python -m paws_jax.main --config=configs/simsiam.py:cifar10
  python -m paws_jax.main --config=configs/simsiam.py:cpu       # digits

Chen and He, Exploring Simple Siamese Representation Learning, 2021 (arXiv
2011.10566), as in its public code: ResNet-50 whose blocks start as the
identity, a projection head of three layers of 2,048 with BatchNorm after each,
a prediction head 2048-512-2048, 512 images a step, views of MoCo v2, BatchNorm
over each view alone, SGD 0.1 with weight decay 1e-4 on all parameters and the
rate outside of the momentum; that of the prediction head stays at 0.1.
Published, linear classification of features: 68.1 % (100 epochs), 70.0 % (200),
70.8 % (400) and 71.3 % (800).

What differs: the rate falls along a cosine every step, not every epoch; the
projection head has no frozen bias, which its BatchNorm would cancel.

`cifar10` is the paper's on CIFAR-10: ResNet-18 for images of 32 pixels, a
projection head of two layers, 512 images a step, SGD 0.06 with weight decay
5e-4, no blur, 800 epochs, linear classification of features: 91.8 %. Its crops
are those of `configs/moco.py:cifar10`, and widths of heads those of ImageNet.

Variants: `100ep` (the default), `200ep`, `400ep`, `800ep`, `cifar10`, and
`cpu`, the quickstart's digits. Only `cpu` has been run to the end by us: 81.9 %
by soft nearest neighbors; its settings are untuned. Forecast, not measured: two
views forward and backward a step are about 25 TFLOP, so 100 epochs are 6.3
exaFLOP, about 18 hours at a sustained 100 TFLOP/s; `cifar10` is 270 PFLOP, 45
minutes at that rate.
"""

from paws_jax import config as config_lib

_EPOCHS = {"100ep": 100, "200ep": 200, "400ep": 400, "800ep": 800}
_STEPS_PER_EPOCH = 2502


def get_config(variant: str = "100ep"):
  if variant == "cpu":
    return _cpu()
  if variant == "cifar10":
    return _cifar10()
  config_lib.check_variant(__file__, variant, (*_EPOCHS, "cifar10", "cpu"))
  config = _imagenet()
  config.train.epochs = _EPOCHS[variant]
  return config


def _imagenet():
  config = config_lib.beside(__file__, "imagenet")
  config.method = config_lib.method_section("simsiam")

  config.views.large.scale = (0.2, 1.0)
  config.views.large.jitter_strength = 0.5
  config.views.small.count = 0

  # No step reads them, so that their number does not matter.
  config.support.classes_per_step = 2
  config.support.images_per_class = 1

  _heads(config, 2048, 512)
  config.model.zero_init_residual = True

  config.optim.name = "sgd"
  config.optim.decayed = "all"
  config.optim.lr_in_momentum = False
  config.optim.weight_decay = 1e-4
  config.optim.warmup_epochs = 0.0
  config.optim.start_lr = config.optim.peak_lr = 0.1
  config.optim.final_lr = 0.0

  config.train.batch_size = 512
  config_lib.set_intervals(config, _STEPS_PER_EPOCH)
  return config


def _cifar10():
  config = config_lib.beside(__file__, "moco", "cifar10")
  config.method = config_lib.method_section("simsiam")
  config.model.projection_norm = True
  _heads(config, 2048, 512)
  config.model.projection_layers = 2
  config.model.zero_init_residual = True
  config.train.bn_groups = 1
  config.train.epochs = 800
  return config


def _cpu():
  config = config_lib.beside(__file__, "quickstart")
  config.method = config_lib.method_section("simsiam")
  config.support.images_per_class = 1
  _heads(config, 128, 32)
  config.log.next_command = (
    "python -m paws_jax.main --config=configs/swav.py:cpu"
  )
  return config


def _heads(config, width, bottleneck):
  """Sets the two heads: three layers of `width`, two with a bottleneck."""
  config.model.projection_hidden_dim = width
  config.model.projection_bias = "none"
  config.model.projection_final_norm = True
  config.model.output_dim = width
  config.model.prediction_head = True
  config.model.prediction_hidden_dim = bottleneck
  config.model.prediction_bias = "last"
