"""Pseudo-Label: an image learns the class that the network is sure of.

  python -m paws_jax.main --config=configs/pseudo_label.py       # CIFAR-10
  python -m paws_jax.main --config=configs/pseudo_label.py:cpu   # digits

Lee, 2013, as FixMatch's published code has it: CIFAR-10 with 4,000 labels
(`4000`, the default; `250`, `40`), WideResNet-28-2, 64 labelled and 64
unlabelled images a step, each a BatchNorm batch of its own, threshold 0.95, a
weight that rises to 1 in 40 % of 2^20 steps; the rest as configs/fixmatch.py.
Published errors: 16.09 ± 0.28 % with 4,000 labels, 49.78 ± 0.43 % with 250.
`cpu`: 4,620 steps on the quickstart's digits, as many images forward and
backward as the quickstart. None of them has been run to the end by us.
"""

from paws_jax import config as config_lib


def get_config(variant: str = "4000"):
  known = ("40", "250", "4000", "cpu")
  config_lib.check_variant(__file__, variant, known)
  config = config_lib.beside(__file__, "fixmatch", variant)
  config.method = config_lib.method_section("pseudo_label")
  del config.views.strong
  config.train.batch_size = 64
  if variant == "cpu":
    config.method.ema_decay = 0.98
    config.support.batch_size = 40
    # 22 steps each.
    config.train.epochs = 210
    config.eval.every_steps = config.checkpoint.every_steps = 462
    config.log.every_steps = 22
    config.log.next_command = (
      "python -m paws_jax.main --config=configs/fixmatch.py:cpu"
    )
    return config
  # 781 steps each: 2^20 in all.
  config.train.epochs = 1343
  config.train.steps_per_call = 71
  config.eval.every_steps = config.checkpoint.every_steps = 7810
  config.log.every_steps = 71
  return config
