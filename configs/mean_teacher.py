"""Mean Teacher: predictions agree with those of the average of the weights.

  python -m paws_jax.main --config=configs/mean_teacher.py       # CIFAR-10
  python -m paws_jax.main --config=configs/mean_teacher.py:cpu   # digits

Tarvainen and Valpola, 2017 (arXiv 1703.01780), as FixMatch's published code has
it: CIFAR-10 with 4,000 labels (`4000`, the default; `250`, `40`),
WideResNet-28-2, 64 labelled and 64 unlabelled images a step, the squared
difference of probabilities with a weight that rises to 50 in 40 % of 2^20
steps, an average of 0.999 as the teacher; the rest as configs/fixmatch.py.
Published errors: 9.19 ± 0.19 % with 4,000 labels, 32.32 ± 2.30 % with 250. What
differs: the teacher is evaluated with the BatchNorm statistics of its own
passes, not with the student's. The original's warm-up of the average is
method.ema_warmup, its ramp method.ramp="exp". `cpu`: 3,828 steps on the
quickstart's digits, as many images forward and backward as the quickstart,
where a forward pass of the teacher is a third of an image. None of them has
been run to the end by us.
"""

from paws_jax import config as config_lib


def get_config(variant: str = "4000"):
  known = ("40", "250", "4000", "cpu")
  config_lib.check_variant(__file__, variant, known)
  config = config_lib.beside(__file__, "pseudo_label", variant)
  config.method = config_lib.method_section("mean_teacher")
  config.views.weak.count = 2
  if variant == "cpu":
    config.method.ema_decay = 0.98
    config.train.epochs = 174
    config.log.next_command = (
      "python -m paws_jax.main --config=configs/pseudo_label.py:cpu"
    )
  return config
