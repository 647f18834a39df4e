"""The quickstart without its unlabelled images: the baseline of PAWS.

  python -m paws_jax.main --config=configs/quickstart_supervised.py

The same encoder, views, supports, optimiser, steps and evaluation as
configs/quickstart.py, but the loss sees the 40 labelled images alone: each is
classified by a soft nearest-neighbour vote of the others (SuNCEt, 2020).
"""

from paws_jax import config as config_lib


def get_config():
  config = config_lib.beside(__file__, "quickstart")
  config.method = config_lib.method_section("supervised")
  config.log.next_command = (
    "python -m paws_jax.main --config=configs/quickstart.py "
    "--workdir=runs/quickstart-10 --config.data.labels_per_class=10"
  )
  return config
