"""SuNCEt: SimCLR with a loss that contrasts labelled images of all classes.

  python -m paws_jax.main --config=configs/suncet.py           # ImageNet
  python -m paws_jax.main --config=configs/suncet.py:500ep,1pct
  python -m paws_jax.main --config=configs/suncet.py:cpu       # digits, minutes

Source: Assran et al., 2020 (arXiv 2006.10803) and its public code, in global
sizes: 2,816 unlabelled images, two crops of each, and 20 classes × 128 labelled
images, one crop of each: 8,192 crops a step, as many as SimCLR with 4,096
images. NT-Xent of the unlabelled plus, with weight 1, the soft
nearest-neighbour loss of the labelled ones; LARS 0.6 → 4.8 → 0.048, temperature
0.1. The recipe of 100 epochs keeps the labels' term to the end; that of 500
drops it after 250. A class with fewer than 128 labelled images gives some of
them several times, differently cropped.

Variants: as of configs/simclr.py: `100ep`, `500ep`, `1pct`, `10pct`, and `cpu`,
the quickstart's digits with this loss. ImageNet has not been run by us.
"""

from paws_jax import config as config_lib

_BATCH_SIZE = 2816
_STEPS_PER_EPOCH = 454
_SUPERVISED_EPOCHS = 250.0


def get_config(variants: str = "100ep"):
  config = config_lib.beside(__file__, "simclr", variants)
  config.method = config_lib.method_section("suncet", config.method)
  config.support.label_smoothing = 0.0
  config.support.with_replacement = True
  if variants == "cpu":
    config.support.images_per_class = 8
    config.log.next_command = (
      "python -m paws_jax.main --config=configs/quickstart.py"
    )
    return config
  config.support.classes_per_step = 20
  config.support.images_per_class = 128
  config.train.batch_size = _BATCH_SIZE
  if config.train.epochs > _SUPERVISED_EPOCHS:
    config.method.supervised_until_epochs = _SUPERVISED_EPOCHS
  config_lib.set_intervals(config, _STEPS_PER_EPOCH)
  return config
