"""SimCLR, which uses no labels: the baseline of the methods that do.

  python -m paws_jax.main --config=configs/simclr.py           # ImageNet
  python -m paws_jax.main --config=configs/simclr.py:500ep
  python -m paws_jax.main --config=configs/simclr.py:cpu       # digits, minutes

NT-Xent of two crops of 4,096 images a step (Chen et al., 2020, arXiv
2002.05709), with encoder, optimiser and crops of the SuNCEt recipe
(configs/suncet.py), whose baseline without labels it is: ResNet-50, a
projection head to 128 numbers, LARS 0.6 → 4.8 → 0.048. Labels serve the
evaluation alone; fine-tune on them afterwards. The gradient goes through both
sides of a similarity; --config.method.detached_keys=True is what the public
code does.

Variants: `100ep` (the default), `500ep`, `1pct` and `10pct` of the labels as in
configs/imagenet.py, which says where data and lists come from; and `cpu`, the
quickstart's digits with this loss. ImageNet has not been run by us.
"""

from paws_jax import config as config_lib

_EPOCHS = {"100ep": 100, "500ep": 500}
_LABELS = {"1pct": "1percent.txt", "10pct": "10percent.txt"}
# Of the 1,281,167 training images.
_BATCH_SIZE = 4096
_STEPS_PER_EPOCH = 312


def get_config(variants: str = "100ep"):
  asked = variants.split(",")
  if "cpu" in asked:
    if len(asked) > 1:
      raise ValueError(
        f"variants {variants} of simclr.py: cpu goes with no other."
      )
    return _cpu()
  config = _imagenet()
  for variant in asked:
    if variant in _EPOCHS:
      config.train.epochs = _EPOCHS[variant]
    elif variant in _LABELS:
      config.data.labels_file = _LABELS[variant]
    else:
      known = ", ".join((*_EPOCHS, *_LABELS, "cpu"))
      raise ValueError(f"variant {variant!r} of simclr.py: known are {known}.")
  return config


def _imagenet():
  config = config_lib.beside(__file__, "imagenet")
  config.method = config_lib.method_section("simclr")

  config.views.large.scale = (0.08, 1.0)
  config.views.small.count = 0

  # No step reads them, so that their number does not matter.
  config.support.classes_per_step = 2
  config.support.images_per_class = 1

  config.model.output_dim = 128
  config.model.prediction_head = False

  config.optim.start_lr = 0.6
  config.optim.peak_lr = 4.8
  config.optim.final_lr = 0.048

  config.train.batch_size = _BATCH_SIZE
  config.eval.every_steps = 10 * _STEPS_PER_EPOCH
  return config


def _cpu():
  config = config_lib.beside(__file__, "quickstart")
  config.method = config_lib.method_section("simclr")
  config.support.images_per_class = 1
  config.log.next_command = (
    "python -m paws_jax.main --config=configs/suncet.py:cpu"
  )
  return config
