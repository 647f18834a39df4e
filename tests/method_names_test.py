"""A method's name stands in its own files, and nowhere else in the package."""

import ast
import pathlib

from paws_jax.config import methods

PACKAGE = pathlib.Path(__file__).parents[1] / "paws_jax"
# The same words as names of other things.
OTHER_THINGS = {
  "config/finetune.py": {"suncet"},  # A protocol of fine-tuning.
  "finetune/protocols.py": {"suncet"},
  "export/torch.py": {"paws"},  # A layout of weight files.
  "weights/write_torch.py": {"paws"},
  "methods/health_metrics.py": {"suncet"},  # A metric.
  "monitoring/reference_curves.py": {"suncet"},
  "plots/curves.py": {"suncet", "byol", "simsiam"},
  "runs/metrics.py": {"suncet"},
  "methods/swav_suncet.py": {"suncet"},
  "config/rand_augment.py": {"fixmatch", "uda", "mpl"},  # Policies.
}


def _own_files(name):
  return {
    "config/methods/__init__.py",
    f"config/methods/{name}.py",
    f"methods/{name}.py",
    f"losses/{name}.py",
  }


def _strings(path):
  tree = ast.parse(path.read_text(encoding="utf-8"))
  return {
    node.value
    for node in ast.walk(tree)
    if isinstance(node, ast.Constant) and isinstance(node.value, str)
  }


def test_no_other_file_names_a_method():
  for path in sorted(PACKAGE.rglob("*.py")):
    file = path.relative_to(PACKAGE).as_posix()
    named = {
      name
      for name in _strings(path) & set(methods.METHODS)
      if file not in _own_files(name)
    }
    # SuNCEt reports its own loss, beside NT-Xent.
    if file == "methods/suncet.py":
      continue
    assert named == OTHER_THINGS.get(file, set()), file
