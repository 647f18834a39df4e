"""UDA: strong views learn the sharpened predictions of weak views.

  python -m paws_jax.main --config=configs/uda.py           # CIFAR-10
  python -m paws_jax.main --config=configs/uda.py:imagenet
  python -m paws_jax.main --config=configs/uda.py:cpu       # digits, minutes

Xie et al., 2019 (arXiv 1904.12848), as its published code for CIFAR-10 with
4,000 labels (`4000`, the default; `250`, `40`): WideResNet-28-2, 64 labelled
and 448 unlabelled images a step, temperature 0.4, threshold 0.8 of the
probabilities before it, SGD with Nesterov momentum 0.03 along 7/16 of a half
turn of a cosine, weight decay 5e-4 of all parameters, 500,000 steps, an average
of 0.9999, BatchNorm statistics of 0.9, no training signal annealing. Published
error: 4.32 ± 0.08 %. What differs: views are drawn anew in every step, not from
100 stored copies.

`imagenet` (10 % of the labels; no code was published): ResNet-50, 512 labelled
and 15,360 unlabelled images, threshold 0.5, weight 20, SGD 0.3, 40,000 steps,
the paper's numbers. Ours are the policy, that of CIFAR-10 without the square at
the end, an average of 0.999 and 5 epochs of warm-up. Published: 68.78 % top-1.
`cpu`: as that of configs/fixmatch.py.

None of them has been run to the end by us.
"""

from paws_jax import config as config_lib


def get_config(variant: str = "4000"):
  known = ("40", "250", "4000", "imagenet", "cpu")
  config_lib.check_variant(__file__, variant, known)
  config = config_lib.beside(__file__, "fixmatch", variant)
  config.method = config_lib.method_section("uda")
  if variant == "cpu":
    config.method.ema_decay = 0.98
    config.method.ema_statistics = False
    config.log.next_command = (
      "python -m paws_jax.main --config=configs/mean_teacher.py:cpu"
    )
    return config
  config.optim.decayed = "all"
  if variant == "imagenet":
    config.views.strong.rand_augment = "uda_imagenet"
    # Of 40,000 steps 0.9999 would still average the first ones.
    config.method.ema_decay = 0.999
    config.method.threshold = 0.5
    config.method.unlabelled_weight = 20.0
    config.support.batch_size = 512
    config.optim.peak_lr = 0.3
    config.optim.final_lr = 0.0003
    config.optim.warmup_epochs = 5.0
    config.train.batch_size = 15_360
    # 83 steps each: 40,000 in all.
    config.train.epochs = 482
    config_lib.set_intervals(config, 83)
    return config
  config.views.strong.rand_augment = "uda"
  config.model.bn_momentum = config.model.final_bn_momentum = 0.9
  # 111 steps each: 500,000 in all.
  config.train.epochs = 4505
  return config
