"""RoPAWS: PAWS where some unlabelled images may be of no known class.

  python -m paws_jax.main --config=configs/ropaws.py           # digits, minutes
  python -m paws_jax.main --config=configs/ropaws.py:cifar10
  python -m paws_jax.main --config=configs/ropaws.py:imagenet

Source: Mo et al., 2023 (arXiv 2302.14483) and its public code. The recipes are
those of PAWS (configs/quickstart.py, cifar10.py, imagenet.py) with other
targets: an image far from all supports is held to a soft label nearer to
uniform, and counts less. Labels weigh 5 times as much as the unlabelled images
of a step together; the temperature of the in-domain prior is 3 for ImageNet and
0.1 for CIFAR-10, as published, and 1 for digits, which nobody has tuned.

Variants: `cpu` (the default), `cifar10`, `imagenet`, and with one of these
`released`: the ratio of the public trainer, where labels weigh about 100 times
(CIFAR-10) and 75 times (ImageNet) as much as the rest (docs/methods.md). The
larger two have not been run by us.
"""

from paws_jax import config as config_lib

# The recipe, the temperature of the in-domain prior, and the unlabelled images
# of one device of the public trainer.
_BASES = {
  "cpu": ("quickstart", 1.0, 64),
  "cifar10": ("cifar10", 0.1, 256),
  "imagenet": ("imagenet", 3.0, 64),
}


def get_config(variants: str = "cpu"):
  asked = variants.split(",")
  bases = [variant for variant in asked if variant in _BASES]
  for variant in asked:
    if variant not in (*_BASES, "released"):
      known = ", ".join((*_BASES, "released"))
      raise ValueError(f"variant {variant!r} of ropaws.py: known are {known}.")
  if len(bases) > 1:
    raise ValueError(
      f"variants {', '.join(bases)} of ropaws.py exclude each other: give one "
      "of them."
    )
  name, temperature, batch_size = _BASES[bases[0] if bases else "cpu"]
  config = config_lib.beside(__file__, name)
  config.method = config_lib.method_section("ropaws", config.method)
  config.method.label_mass_ratio = 5.0
  config.method.in_domain_temperature = temperature
  config.method.as_released = "released" in asked
  config.method.released_batch_size = batch_size
  config.log.next_command = ""
  return config
