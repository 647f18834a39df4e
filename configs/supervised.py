"""A classifier of the labelled images alone, with all that helps it.

  python -m paws_jax.main --config=configs/supervised.py           # CIFAR-10
  python -m paws_jax.main --config=configs/supervised.py:4000
  python -m paws_jax.main --config=configs/supervised.py:imagenet
  python -m paws_jax.main --config=configs/supervised.py:cpu       # digits

The yardstick of methods that use unlabelled images: RandAugment, mixup, CutMix,
label smoothing, a cosine schedule and the average of the weights. `all` (the
default) has all labels of CIFAR-10, `4000`, `250` and `40` as many as the other
recipes; `imagenet` 10 % of the labels. An epoch is one of all images, of which
only the labelled ones are read. `cpu` is on the quickstart's digits. None of
them has been run to the end by us, and settings are untuned.
"""

from paws_jax import config as config_lib

_LABELS_PER_CLASS = {"all": 0, "40": 4, "250": 25, "4000": 400}


def get_config(variant: str = "all"):
  known = (*_LABELS_PER_CLASS, "imagenet", "cpu")
  config_lib.check_variant(__file__, variant, known)
  start = "4000" if variant in _LABELS_PER_CLASS else variant
  config = config_lib.beside(__file__, "fixmatch", start)
  config.method = config_lib.method_section("strong_supervised")
  config.support.label_smoothing = 0.1
  config.views.support = config.views.strong
  del config.views.weak, config.views.strong
  config.optim.schedule = "cosine"
  config.optim.peak_lr = 0.1
  config.optim.final_lr = 0.0
  if variant == "cpu":
    return _cpu(config)
  config.views.support.rand_augment = "strong"
  if variant == "imagenet":
    config.views.support.cutout_size = 0
    config.optim.peak_lr = 0.4
    config.optim.warmup_epochs = 5.0
    # Unlabelled images are not read: an epoch has 1,251 steps.
    config.train.batch_size = 1024
    config.train.epochs = 100
    config_lib.set_intervals(config, 1251)
    return config
  config.views.support.cutout_size = 8
  config.data.labels_per_class = _LABELS_PER_CLASS[variant]
  config.support.batch_size = 128
  config.support.with_replacement = variant == "40"
  config.train.batch_size = 128
  # 390 steps each.
  config.train.epochs = 300
  config.train.steps_per_call = 39
  config.eval.every_steps = config.checkpoint.every_steps = 3900
  config.log.every_steps = 39
  return config


def _cpu(config):
  config.method.ema_decay = 0.98
  config.support.batch_size = 40
  config.optim.peak_lr = 0.03
  # Eight steps each, 2,400 in all.
  config.train.epochs = 300
  config.eval.every_steps = config.checkpoint.every_steps = 300
  config.log.next_command = (
    "python -m paws_jax.main --config=configs/fixmatch.py:cpu"
  )
  return config
