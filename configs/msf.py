"""MSF (mean shift): an image moves to the nearest targets of earlier ones.

  python -m paws_jax.main --config=configs/msf.py           # ImageNet
  python -m paws_jax.main --config=configs/msf.py:cifar10
  python -m paws_jax.main --config=configs/msf.py:cpu       # digits, minutes

Koohpayegani et al., Mean Shift for Self-Supervised Learning, 2021 (arXiv
2105.07269), as in its public code: ResNet-50 with two-layer heads 2048-4096-512
and 512-4096-512, batches of 256, one direction (a strongly augmented query, a
weakly augmented target), the 5 nearest of 128,000 targets, SGD 0.05 with weight
decay 1e-4 on all parameters and the rate outside of the momentum. Published for
200 epochs, linear classification of features: 72.2 % with a bank of 256,000 and
72.4 % with 1,024,000 (--config.method.bank_size).

What differs: the rate falls along a cosine every step, not every epoch, to the
rate of the last epoch; BatchNorm is over the batch, not groups of 64
(--config.train.bn_groups=4 is the public code's); empty rows of the bank are
never chosen.

`cifar10` has no published counterpart: ResNet-18 for images of 32 pixels, heads
and rates as above, no blur, a bank of a tenth of the images.

Variants: `200ep` (the default), `100ep`, `cifar10`, and `cpu`, the quickstart's
digits, which alone has been run by us. Forecast, not measured: one view forward
and backward and one forward a step are about 8.4 TFLOP, so 200 epochs are 8.4
exaFLOP, about 24 hours at a sustained 100 TFLOP/s; `cifar10` is 45 PFLOP, 8
minutes at that rate.
"""

from paws_jax import config as config_lib

_EPOCHS = {"100ep": 100, "200ep": 200}
_STEPS_PER_EPOCH = 5004


def get_config(variant: str = "200ep"):
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
  config.method = config_lib.method_section("msf")

  config.views.large.update(
    count=1,
    scale=(0.2, 1.0),
    jitter_strength=0.5,
    jitter_probability=0.8,
    grey_probability=0.2,
    blur_probability=0.5,
  )
  config.views.small.count = 0
  config.views.second = config_lib.view_spec(
    count=1,
    size=224,
    scale=(0.2, 1.0),
    jitter_probability=0.0,
    grey_probability=0.0,
    blur_probability=0.0,
  )

  # No step reads them, so that their number does not matter.
  config.support.classes_per_step = 2
  config.support.images_per_class = 1

  config.model.projection_layers = 2
  config.model.projection_hidden_dim = 4096
  config.model.prediction_head = True
  config.model.prediction_hidden_dim = 4096
  config.model.output_dim = 512

  config.optim.name = "sgd"
  config.optim.decayed = "all"
  config.optim.lr_in_momentum = False
  config.optim.weight_decay = 1e-4
  config.optim.warmup_epochs = 0.0
  config.optim.start_lr = config.optim.peak_lr = 0.05
  config.optim.final_lr = 3.1e-6

  config.train.batch_size = 256
  config_lib.set_intervals(config, _STEPS_PER_EPOCH)
  return config


def _cifar10():
  config = config_lib.beside(__file__, "moco", "cifar10")
  config.method = config_lib.method_section("msf")
  config.method.bank_size = 5120

  config.views.large.update(count=1, size=32, scale=(0.2, 1.0))
  config.views.second = config_lib.view_spec(
    count=1,
    size=32,
    scale=(0.2, 1.0),
    jitter_probability=0.0,
    grey_probability=0.0,
    blur_probability=0.0,
  )

  config.model.projection_norm = True
  config.model.projection_hidden_dim = 1024
  config.model.prediction_head = True
  config.model.prediction_hidden_dim = 1024

  config.optim.weight_decay = 1e-4
  config.optim.start_lr = config.optim.peak_lr = 0.05
  config.optim.final_lr = 3.1e-6

  config.train.batch_size = 256
  config.train.bn_groups = 1
  config.train.steps_per_call = 39
  config_lib.set_intervals(config, 195)
  return config


def _cpu():
  config = config_lib.beside(__file__, "quickstart")
  config.method = config_lib.method_section("msf")
  config.method.bank_size = 512
  config.support.images_per_class = 1
  config.model.projection_layers = 2
  config.model.projection_hidden_dim = 128
  config.model.prediction_head = True
  config.model.prediction_hidden_dim = 128
  config.log.next_command = (
    "python -m paws_jax.main --config=configs/cmsf.py:cpu"
  )
  return config
