"""CIFAR-10 with 4,000 labels, exactly as the paper's public recipe.

  python -m paws_jax.main --config=configs/cifar10.py

Source: Assran et al., 2021 (arXiv 2104.13963), appendix, and its public
reference. WideResNet-28-2, 256 unlabelled images and 10 × 64 × 2 support views
a step, 2 crops of 32 and 6 of 18 pixels, LARS 0.8 → 3.2 → 0.032, 600 epochs of
195 steps. The paper reports 96.0 ± 0.2 % over five splits.

CIFAR-10 must be prepared by TensorFlow Datasets (the error says how). It needs
an accelerator: 393 PFLOP are days on a laptop. Not yet run to the end by us.

Afterwards, --task=finetune trains on the labels by the SuNCEt protocol of the
reference (docs/finetune.md).

Variants: `configs/cifar10.py:40` has 40 labels instead of 4,000 (4 a class,
each standing in 16 times); not in the paper.
"""

from paws_jax import config as config_lib


def get_config(variant: str = "4000"):
  config = config_lib.base()
  config.data.source = "tfds"
  config.data.tfds_name = "cifar10"
  config.data.labels_per_class = _labels_per_class(variant)

  config.views.large.size = 32
  config.views.large.scale = (0.75, 1.0)
  config.views.small.count = 6
  config.views.small.size = 18
  config.views.small.scale = (0.3, 0.75)
  for view in (config.views.large, config.views.small):
    view.jitter_strength = 0.5
    view.grey_probability = 0.0
    view.blur_probability = 0.0
    view.solarize_probability = 0.2
    view.equalize_probability = 0.2
  config.views.mean = (0.4914, 0.4822, 0.4465)
  config.views.std = (0.2023, 0.1994, 0.2010)
  config.views.eval_resize = 0

  config.support.classes_per_step = 10
  config.support.images_per_class = 64
  config.support.num_views = 2
  config.support.with_replacement = config.data.labels_per_class < 64

  config.model.name = "wide_resnet28"
  config.model.width = 2
  config.model.output_dim = 128
  config.model.prediction_head = False
  # As in the reference: nearly the last batch, that of the small crops.
  config.model.final_bn_momentum = 0.01

  config.optim.start_lr = 0.8
  config.optim.peak_lr = 3.2
  config.optim.final_lr = 0.032

  # Supports as in pre-training, whole images, 0.1 → 0.01 among others.
  config.finetune.protocol = "suncet"
  config.finetune.learning_rates = (0.03, 0.1, 0.3)
  config.finetune.epochs = 30
  config.finetune.crop_scale = (1.0, 1.0)
  config.finetune.aspect_ratio = (1.0, 1.0)

  config.train.batch_size = 256
  config.train.epochs = 600
  # A fifth of an epoch in one call; on a CPU set it to 1 (docs/decisions.md).
  config.train.steps_per_call = 39

  config.eval.every_steps = 1950
  config.checkpoint.every_steps = 1950
  config.log.every_steps = 39
  return config


def _labels_per_class(variant: str) -> int:
  if variant not in ("40", "4000"):
    raise ValueError(f"variant {variant!r} of cifar10.py: known are 40, 4000.")
  return int(variant) // 10
