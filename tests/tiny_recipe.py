"""PAWS on digits, as small as it goes: 10 steps, for tests of whole runs.

python -m paws_jax.main --config=tests/tiny_recipe.py --workdir=DIR
"""

from paws_jax import config as config_lib


def get_config():
  config = config_lib.base()
  config.data.source = "digits"
  config.data.labels_per_class = 2

  config.views.large.size = 8
  config.views.large.scale = (0.5, 1.0)
  config.views.small.count = 1
  config.views.small.size = 8
  config.views.small.scale = (0.3, 0.6)
  for view in (config.views.large, config.views.small):
    view.aspect_ratio = (1.0, 1.0)
    view.flip_probability = 0.0
    view.jitter_probability = 0.0
    view.grey_probability = 0.0
    view.blur_probability = 0.0
  config.views.mean = (0.305,)
  config.views.std = (0.376,)
  config.views.eval_resize = 8

  config.support.classes_per_step = 5
  config.support.images_per_class = 2

  config.model.name = "wide_resnet10"
  config.model.output_dim = 8
  config.model.prediction_head = False

  config.optim.name = "adamw"
  config.optim.start_lr = 1e-4
  config.optim.peak_lr = 1e-3
  config.optim.final_lr = 1e-5
  config.optim.warmup_epochs = 0
  config.optim.weight_decay = 1e-4

  # 1437 images: 5 steps an epoch.
  config.train.batch_size = 256
  config.train.epochs = 2

  config.eval.every_steps = 5
  config.eval.batch_size = 256
  config.checkpoint.every_steps = 2
  config.log.every_steps = 3
  return config
