"""Fashion-MNIST, 70,000 photographs of clothing, with few labels.

  python -m paws_jax.main --config=configs/fashion_mnist.py        # 400 a class
  python -m paws_jax.main --config=configs/fashion_mnist.py:40     # 40 a class
  python -m paws_jax.main --config=configs/fashion_mnist.py:40,cpu # two cores

The four idx files are read from data.dir: Debian's package
dataset-fashion-mnist puts them where the default looks; elsewhere give
--config.data.dir. Two large and six small crops and the CIFAR-10 recipe's
encoder and optimiser (WideResNet-28-2, LARS; PAWS, 2021), for 100 epochs of 234
steps; an accelerator's work, and not yet run to the end by us.

The variant `cpu` is a slice for two cores, of at most 20 minutes: images of 20
pixels, a small residual network, no small crops, AdamW, the cross-entropy of
the support labels added (configs/quickstart.py says why) and twelve epochs.
benchmarks/RESULTS.md has what it reached.
"""

from paws_jax import config as config_lib

_LABELS_PER_CLASS = ("40", "400")


def get_config(variants: str = "400"):
  config = config_lib.base()
  _data_and_views(config)
  _accelerator(config)
  for variant in variants.split(","):
    if variant in _LABELS_PER_CLASS:
      config.data.labels_per_class = int(variant)
    elif variant == "cpu":
      _cpu(config)
    else:
      known = ", ".join((*_LABELS_PER_CLASS, "cpu"))
      raise ValueError(
        f"variant {variant!r} of fashion_mnist.py: known are {known}."
      )
  few = config.data.labels_per_class < config.support.images_per_class
  config.support.with_replacement = few
  return config


def _data_and_views(config):
  config.data.source = "idx"
  config.data.dir = "/usr/share/datasets/fashion-mnist"
  config.data.labels_per_class = 400

  config.views.large.size = 28
  config.views.large.scale = (0.5, 1.0)
  config.views.small.size = 16
  config.views.small.scale = (0.2, 0.5)
  for view in (config.views.large, config.views.small):
    # Grey images: brightness and contrast are all that jitter changes.
    view.jitter_strength = 0.5
    view.grey_probability = 0.0
    view.blur_probability = 0.0
  config.views.mean = (0.286,)
  config.views.std = (0.353,)
  config.views.eval_resize = 0


def _accelerator(config):
  config.support.classes_per_step = 10
  config.support.images_per_class = 64

  config.model.name = "wide_resnet28"
  config.model.width = 2
  config.model.output_dim = 128
  config.model.prediction_head = False

  config.optim.start_lr = 0.8
  config.optim.peak_lr = 3.2
  config.optim.final_lr = 0.032

  config.train.batch_size = 256
  config.train.epochs = 100
  config.train.steps_per_call = 39

  config.eval.every_steps = 1170
  config.checkpoint.every_steps = 1170
  config.log.every_steps = 39


def _cpu(config):
  config.views.large.size = 20
  config.views.large.scale = (0.4, 1.0)
  config.views.small.count = 0
  config.views.eval_resize = 20

  config.support.images_per_class = 10

  config.model.name = "small_resnet"
  config.model.width = 1

  config.method.support_loss_weight = 1.0

  config.optim.name = "adamw"
  config.optim.start_lr = 3e-4
  config.optim.peak_lr = 1.5e-3
  config.optim.final_lr = 3e-5
  config.optim.warmup_epochs = 0.5
  config.optim.weight_decay = 1e-4

  config.train.batch_size = 128
  config.train.epochs = 12
  # XLA's CPU convolutions are slow inside a loop (docs/decisions.md).
  config.train.steps_per_call = 1

  config.eval.every_steps = 468
  config.checkpoint.every_steps = 468
  config.log.every_steps = 26
