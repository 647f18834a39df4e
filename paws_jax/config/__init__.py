"""Every field of a recipe, once, with its default, its unit and its range.

A recipe (`configs/*.py`) is `base()` plus its differences. `validate` checks a
resolved recipe before a device is touched; it needs neither JAX nor the data.
All sizes are global: the whole batch and the whole support set, never a
device's share.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import ml_collections

from paws_jax import errors
from paws_jax.config import checks


def base() -> ml_collections.ConfigDict:
  """Returns the defaults of every field; recipes override what differs."""
  section = ml_collections.ConfigDict
  config = section()
  # Drives initialisation, sample order, support draws and augmentation.
  config.seed = 0

  config.data = section()
  # "digits" (scikit-learn), "idx" (MNIST family, from `dir`), "tfds", or
  # "folder" (your own images).
  config.data.source = "digits"
  # "memory": all images lie on the devices (digits, idx, small tfds); "host":
  # they are read and decoded as training goes (folder, tfds).
  config.data.pipeline = "memory"
  # Directory of the idx files or of the images, or TFDS data_dir ("" is TFDS'
  # own default).
  config.data.dir = ""
  # Of source "folder": CSV file that lists images, labels and splits, in `dir`
  # or anywhere. "": `dir` holds a folder of labelled images for every class.
  config.data.manifest = ""
  # ... and these, in `dir` or anywhere, unlabelled images and, by class, test
  # images; "": none.
  config.data.unlabelled_dir = ""
  config.data.test_dir = ""
  # TFDS builder, "name" or "name/config:version"; read when source is "tfds".
  config.data.tfds_name = ""
  # Images are resized once to squares of this side in pixels, bilinearly (0:
  # kept as they are). Crops have whole-pixel boxes: enlarging tiny images
  # gives them more places to be.
  config.data.image_size = 0
  # Which training images are labelled: a stratified draw by `split_seed`, so
  # many of each class or this fraction of them (both 0: all that have a label)
  # ...
  config.data.labels_per_class = 4
  config.data.labels_fraction = 0.0
  config.data.split_seed = 0
  # ... or those whose rows or file names stand in this file, one a line; then
  # labels_per_class is 0.
  config.data.labels_file = ""
  # Labelled images are unlabelled images as well, as in the paper.
  config.data.include_labelled = True
  # Of pipeline "host": side in pixels of the square on which an image is
  # shipped to the devices; larger ones are reduced first.
  config.data.canvas_size = 512
  # An image that cannot be read: "error" stops the run, "skip" puts another one
  # in its place and says so.
  config.data.on_bad_image = "error"
  # Images of more pixels are not decoded: a small file can hold a huge one.
  config.data.max_pixels = 178_956_970
  # Memory of each process for decoded labelled images, in units of 2^20 bytes.
  config.data.support_cache_mb = 1024

  config.views = section()
  # Crops of each unlabelled image; sides in pixels, scales as area fractions.
  config.views.num_large = 2
  config.views.large_size = 224
  config.views.large_scale = (0.14, 1.0)
  config.views.num_small = 6
  config.views.small_size = 96
  config.views.small_scale = (0.05, 0.14)
  # Width over height of a crop, drawn log-uniformly.
  config.views.aspect_ratio = (3 / 4, 4 / 3)
  config.views.flip_probability = 0.5
  # Rotation, uniform in +-degrees; cost grows with the 4th power of the side,
  # so it is meant for images of at most 64 pixels.
  config.views.rotation_degrees = 0.0
  # Brightness, contrast, saturation 0.8 s and hue 0.2 s, in random order.
  config.views.jitter_strength = 1.0
  config.views.jitter_probability = 0.8
  config.views.grey_probability = 0.2
  config.views.blur_probability = 0.5
  # Pillow radius (standard deviation) in pixels, drawn uniformly.
  config.views.blur_radius = (0.1, 2.0)
  config.views.solarize_probability = 0.0
  config.views.equalize_probability = 0.0
  # Per channel, in units of the full range; as many values as channels.
  config.views.mean = (0.485, 0.456, 0.406)
  config.views.std = (0.229, 0.224, 0.225)
  # Evaluation: short side resized to this (0: not resized; only where images
  # are in memory), then the centre `large_size` square.
  config.views.eval_resize = 256

  config.support = section()
  # Distinct classes drawn in a step (0: all that the data has), and labelled
  # images of each.
  config.support.classes_per_step = 960
  config.support.images_per_class = 7
  # Differently augmented views of each drawn image.
  config.support.num_views = 1
  config.support.label_smoothing = 0.1
  # Lets a class with n < images_per_class labelled images stand in with each
  # of them floor or ceil(images_per_class / n) times, differently augmented.
  config.support.with_replacement = False

  config.model = section()
  # One of models.ENCODERS: resnet50, wide_resnet28, ...
  config.model.name = "resnet50"
  # Multiplies every width of the encoder.
  config.model.width = 1
  # Units of the hidden layers of the projection head; 0: the encoder's width.
  config.model.projection_hidden_dim = 0
  config.model.output_dim = 2048
  config.model.prediction_head = True
  # Starts each residual block of a ResNet as the identity.
  config.model.zero_init_residual = False
  # Share of the old value kept in a running statistic (PyTorch's 1 - m).
  config.model.bn_momentum = 0.9
  # The same for the last BatchNorm of a wide ResNet.
  config.model.final_bn_momentum = 0.9
  # Training too normalises with the running statistics, and leaves them as
  # they are: for few images, from weights that have good ones (init_from).
  config.model.freeze_bn = False
  # Activations: "float32", "bfloat16" or "auto" (bfloat16 on accelerators).
  config.model.dtype = "auto"
  # Weights that pre-training starts from: a file of PyTorch (.pth, .pth.tar,
  # .pt, .safetensors, .npz), another run's workdir, or the directory of a saved
  # classifier. "": random ones, by `seed`.
  config.model.init_from = ""

  config.method = section()
  # One of methods.METHODS: paws, ropaws, simclr, suncet, supervised
  # (docs/methods.md says which when).
  config.method.name = "paws"
  config.method.temperature = 0.1
  config.method.sharpen_temperature = 0.25
  # Maximise the entropy of the mean sharpened prediction, or draw it to another
  # prior than the uniform one.
  config.method.me_max = True
  # Share of each class among unlabelled images, where me_max draws to and its
  # KL is reported from: "uniform", "labels" (as often as among labelled images)
  # or "given": prior_probs, a number for each class of the data, in order. The
  # classes of a step have theirs, scaled to a sum of 1.
  config.method.prior = "uniform"
  config.method.prior_probs = ()
  # Weight of the cross-entropy of support labels, each predicted by the other
  # supports (the paper's appendix E); 0 leaves it out, as in the main recipe.
  # In method suncet it is that of the SuNCEt term, 1 in the paper.
  config.method.support_loss_weight = 0.0
  # Weight of the mean entropy of predictions: instead of sharpening, that is
  # with sharpen_temperature = 1, or beside it (appendix E).
  config.method.entropy_loss_weight = 0.0
  # Report NT-Xent, SuNCEt, agreement of views, classes used, similarity to
  # supports and feature rank at every step; they train nothing.
  config.method.health_metrics = True
  # simclr, suncet: no gradient through the keys of NT-Xent, as in the public
  # code.
  config.method.detached_keys = False
  # suncet: steps, or epochs, after which labels no longer count; one of the two
  # is 0. Both 0: they count to the end.
  config.method.supervised_until = 0
  config.method.supervised_until_epochs = 0.0
  # ropaws: what all supports together weigh in the density over what all
  # unlabelled images do, ...
  config.method.label_mass_ratio = 5.0
  # ... temperature and exponent of the probability of being of a known class
  # (3 for ImageNet, 0.1 for CIFAR-10), ...
  config.method.in_domain_temperature = 3.0
  config.method.in_domain_power = 1.0
  # ... and iterations of the fixed point, each with an all-gather.
  config.method.num_iterations = 20
  # ropaws: label_mass_ratio as the published trainer has it, of the unlabelled
  # images of one of its devices and of the supports of one class.
  config.method.as_released = False
  config.method.released_batch_size = 64

  config.optim = section()
  # "lars", "sgd" or "adamw".
  config.optim.name = "lars"
  # Learning rate at the first step, after warm-up, and at the last step.
  config.optim.start_lr = 0.3
  config.optim.peak_lr = 6.4
  config.optim.final_lr = 0.064
  config.optim.warmup_epochs = 10.0
  config.optim.weight_decay = 1e-6
  config.optim.momentum = 0.9
  # Second-moment decay of AdamW (its first is `momentum`).
  config.optim.b2 = 0.999
  config.optim.nesterov = False
  config.optim.trust_coefficient = 1e-3

  config.train = section()
  # Unlabelled images a step; steps per epoch = floor(images / batch_size).
  config.train.batch_size = 4096
  config.train.epochs = 100
  # Steps in one call of the compiled program (a lax.scan over them).
  config.train.steps_per_call = 1
  # Recompute activations in the backward pass to save memory: "none", "dots"
  # (keep convolutions and matrix products) or "all".
  config.train.remat = "none"
  # Devices that share BatchNorm statistics. 0: all, whatever their number;
  # anything else makes results depend on the number of devices.
  config.train.bn_group_size = 0

  config.eval = section()
  # Steps between soft nearest-neighbour evaluations; 0: at the end only.
  config.eval.every_steps = 0
  # Images embedded at once.
  config.eval.batch_size = 256

  config.checkpoint = section()
  # Steps between checkpoints; 0: at the end (and at a signal) only.
  config.checkpoint.every_steps = 0
  # Checkpoints at multiples of this are kept for good; 0: the last two only.
  config.checkpoint.keep_every_steps = 0

  config.finetune = section()
  # "linear_head" (ImageNet: a linear layer on the trunk and the first
  # projection layer) or "suncet" (CIFAR: the soft nearest-neighbour loss).
  config.finetune.protocol = "linear_head"
  # At the first step; each is tried, and the best on the hold-out is taken.
  config.finetune.learning_rates = (0.01, 0.02, 0.05)
  config.finetune.epochs = 50
  # Labelled images a step, of "linear_head"; "suncet" takes a support set.
  config.finetune.batch_size = 1024
  # Area fractions and width over height of the crops trained on; flips and
  # rotations are those of section `views`.
  config.finetune.crop_scale = (0.08, 1.0)
  config.finetune.aspect_ratio = (3 / 4, 4 / 3)
  # What learning rate and epoch are chosen on: "stratified" (a part of the
  # labelled images), "paper" (more labelled training images, those in
  # holdout_file) or "none" (nothing is chosen: give one learning rate).
  config.finetune.holdout = "stratified"
  # Of "stratified": this share of each class, at least one image; drawn by
  # data.split_seed.
  config.finetune.holdout_fraction = 0.2
  # Of "paper": rows or file names of training images, one a line.
  config.finetune.holdout_file = ""
  # Train once more, on all labelled images, as it was chosen.
  config.finetune.refit = True

  config.log = section()
  # Steps between lines of metrics.jsonl (means over those steps).
  config.log.every_steps = 1
  # Also write TensorBoard files (loads TensorFlow).
  config.log.tensorboard = False
  # Shown when a run ends: what a reader may want to try after this recipe.
  config.log.next_command = ""
  return config


def validate(config: ml_collections.ConfigDict) -> None:
  """Checks every field of a resolved recipe by itself and against the others.

  What needs the data or the devices is checked where those are at hand.

  Args:
    config: the recipe, with overrides.

  Raises:
    ValueError: naming the field, its value, and what it may be.
  """
  for name, value in _leaves(config):
    numbers = value if isinstance(value, (tuple, list)) else (value,)
    for number in numbers:
      if isinstance(number, float) and not math.isfinite(number):
        raise errors.InputError(f"{name} is {value}: it must be finite.")
    wanted, holds = checks.FIELDS.get(name, checks.ANYTHING)
    if not holds(value):
      raise errors.InputError(f"{name} is {value!r}: it must be {wanted}.")
  checks.check_together(config)


def _leaves(
  tree: ml_collections.ConfigDict, prefix: str = ""
) -> Iterator[tuple[str, Any]]:
  for name, value in tree.items():
    if isinstance(value, ml_collections.ConfigDict):
      yield from _leaves(value, f"{prefix}{name}.")
    else:
      yield prefix + name, value
