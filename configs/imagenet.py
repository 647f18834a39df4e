"""ImageNet with 1 % or 10 % of the labels, as in the paper.

  python -m paws_jax.main --config=configs/imagenet.py                  # 10 %
  python -m paws_jax.main --config=configs/imagenet.py:1pct,200ep,width2
  python -m paws_jax.main --config=configs/imagenet.py:8gpu
  python -m paws_jax.main --config=configs/imagenet.py:1gpu

Source: Assran et al., 2021 (arXiv 2104.13963), section 5, and its public
reference. ResNet-50 with a prediction head, 4,096 unlabelled images and
960 × 7 supports a step, 2 crops of 224 and 6 of 96 pixels, LARS 0.3 → 6.4 →
0.064. The paper's soft nearest neighbours (PAWS-NN), top-1:

  epochs   1 %    10 %
  100      61.5   71.0
  200      63.2   71.9
  300      64.2   73.1

and fine-tuned (--task=finetune, docs/finetune.md):

  epochs   1 %    10 %
  100      63.8   73.9
  200      66.1   75.0
  300      66.5   75.5

Variants, which combine: `1pct`, `10pct` (labels); `100ep`, `200ep`, `300ep`;
`width2`, `width4`; `8gpu` (256 images and 560 × 3 supports a step, peak 1.2,
without me-max, 100 epochs: the recipe for one machine of 8 GPUs); `1gpu` (the
entire step on one device, in 64 chunks of 64 images and 105 supports, each with
BatchNorm statistics of its own, where the recipe shares them among all:
docs/small_hardware.md).

Data: imagenet2012 prepared by TensorFlow Datasets, or another copy, in a folder
for every class, with --config.data.source=folder --config.data.tfds_name=
--config.data.dir=DIR (docs/own_data.md). The lists of labelled images are those
of SimCLR, which TFDS' imagenet2012_subset and the paper's reference use as
well: fetch 1percent.txt or 10percent.txt from
https://github.com/google-research/simclr/tree/master/imagenet_subsets and
start in their directory, or give --config.data.labels_file.

A step is 480 TFLOP; 100 epochs took the reference 8.2 hours on 64 V100. The
`8gpu` recipe reaches 70.2 % in the paper, fine-tuned on 10 %. Not yet run to
the end by us.
"""

from paws_jax import config as config_lib

_LABELS = {"1pct": "1percent.txt", "10pct": "10percent.txt"}
_EPOCHS = {"100ep": 100, "200ep": 200, "300ep": 300}
_WIDTHS = {"width2": 2, "width4": 4}
_MACHINES = ("8gpu", "1gpu")
_STEPS_PER_EPOCH = 312


def get_config(variants: str = "10pct"):
  # The defaults of `base` are this recipe's.
  config = config_lib.base()
  config.data.source = "tfds"
  config.data.pipeline = "host"
  config.data.tfds_name = "imagenet2012"
  config.data.labels_file = _LABELS["10pct"]
  # The list tells all of them.
  config.data.labels_per_class = 0

  config_lib.set_intervals(config, _STEPS_PER_EPOCH)
  config.log.every_steps = 8

  asked = variants.split(",")
  for group in (_LABELS, _EPOCHS, _WIDTHS, _MACHINES):
    rivals = [variant for variant in asked if variant in group]
    if len(rivals) > 1:
      raise ValueError(
        f"variants {', '.join(rivals)} of imagenet.py exclude each other: give "
        "one of them."
      )
  for variant in asked:
    if variant in _LABELS:
      config.data.labels_file = _LABELS[variant]
    elif variant in _EPOCHS:
      config.train.epochs = _EPOCHS[variant]
    elif variant in _WIDTHS:
      config.model.width = _WIDTHS[variant]
    elif variant == "8gpu":
      _one_machine(config)
    elif variant == "1gpu":
      # What each of 64 accelerators has of a step.
      config.train.chunks = 64
    else:
      known = ", ".join((*_LABELS, *_EPOCHS, *_WIDTHS, *_MACHINES))
      raise ValueError(
        f"variant {variant!r} of imagenet.py: known are {known}."
      )
  return config


def _one_machine(config):
  """The reference's for 8 GPUs: 32 images and 70 × 3 supports on each."""
  config.support.classes_per_step = 560
  config.support.images_per_class = 3
  config.method.me_max = False
  config.optim.peak_lr = 1.2
  config.optim.final_lr = 0.012
  config.train.batch_size = 256
  steps_per_epoch = 5004
  config.eval.every_steps = 10 * steps_per_epoch
  config.checkpoint.every_steps = steps_per_epoch // 6
  config.checkpoint.keep_every_steps = 50 * steps_per_epoch
