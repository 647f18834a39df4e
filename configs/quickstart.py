"""PAWS on scikit-learn's handwritten digits: two minutes on two CPU cores.

python -m paws_jax.main --config=configs/quickstart.py
"""

from paws_jax import config as config_lib


def get_config():
  config = config_lib.base()
  config.data.source = "digits"
  config.data.labels_per_class = 4

  config.views.large_size = 16
  config.views.large_scale = (0.5, 1.0)
  config.views.num_small = 2
  config.views.small_size = 12
  config.views.small_scale = (0.3, 0.6)
  config.views.aspect_ratio = (1.0, 1.0)
  config.views.flip_probability = 0.0
  config.views.rotation_degrees = 15.0
  config.views.jitter_probability = 0.0
  config.views.grey_probability = 0.0
  config.views.blur_probability = 0.0
  config.views.mean = (0.305,)
  config.views.std = (0.376,)
  config.views.eval_resize = 16

  config.support.classes_per_step = 10
  config.support.images_per_class = 8
  config.support.with_replacement = True

  config.model.name = "wide_resnet10"
  config.model.width = 2
  config.model.output_dim = 64
  config.model.prediction_head = False

  config.optim.name = "adamw"
  config.optim.start_lr = 3e-4
  config.optim.peak_lr = 3e-3
  config.optim.final_lr = 3e-5
  config.optim.warmup_epochs = 2
  config.optim.weight_decay = 1e-4

  config.train.batch_size = 128
  config.train.epochs = 23
  config.train.steps_per_call = 1

  config.eval.every_steps = 55
  config.checkpoint.every_steps = 55
  config.log.every_steps = 11
  return config
