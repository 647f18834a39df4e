"""Exports: written whole, read without paws_jax, refused with a remedy."""

import builtins
import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
import safetensors.numpy

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax import tf_runtime
from paws_jax.export import program as program_lib
from paws_jax.export import savedmodel
from paws_jax.export import stablehlo
from paws_jax.export import torch
from paws_jax.runs import workdir as workdir_lib
from paws_jax.tasks import export
from paws_jax.training import save_classifier
from paws_jax.weights import torch_names
from tests import processes
from tests import random_classifier

ROOT = pathlib.Path(__file__).parents[2]
RECIPE = random_classifier.recipe("auto")
IMAGES = random_classifier.pixels(random_classifier.settings().shape, 5)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """A run's directory as far as it matters: a recipe and a classifier."""
  path = tmp_path_factory.mktemp("run")
  workdir_lib.prepare(path, config_lib.resolve(RECIPE))
  made = random_classifier.make(dtype="auto")
  save_classifier.save(made, path / "classifier")
  return path


@pytest.fixture(scope="module")
def exported(workdir):
  """Directory of a StableHLO export, made as the task makes it."""
  assert export.run(export.prepare(RECIPE, str(workdir))) == 0
  return workdir / "export" / "stablehlo"


def block(containing):
  """The first block of Python in the guide that contains some words."""
  guide = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
  blocks = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
  return next(text for text in blocks if containing in text)


def run_apart(directory, code, blocked):
  """Runs code where these packages cannot be imported; gives its outputs."""
  np.save(directory / "images.npy", IMAGES)
  lines = ["import sys", *(f"sys.modules[{name!r}] = None" for name in blocked)]
  code = "\n".join([*lines, "import numpy as np", code])
  result = subprocess.run(
    [sys.executable, "-c", code],
    cwd=directory,
    env={
      "PATH": os.defpath,
      "HOME": str(directory),
      "JAX_PLATFORMS": "cpu",
      **processes.compilation_cache(),
    },
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  return [np.load(directory / f"{name}.npy") for name in ("p", "z", "one")]


def check_outputs(outputs):
  probabilities, embeddings, one = outputs
  # "auto" is float32 on this machine's CPU.
  classifier = random_classifier.make(dtype="float32")
  expected = classifier.predict(IMAGES).probabilities
  np.testing.assert_allclose(probabilities, expected, atol=2e-6)
  np.testing.assert_allclose(
    embeddings, classifier.embed(IMAGES), rtol=1e-5, atol=1e-5
  )
  # Another number of images, with the same program.
  np.testing.assert_allclose(one, expected[:1], atol=2e-6)


SAVE = """
images = np.load("images.npy")
outputs = predict(images)
np.save("p.npy", outputs["probabilities"])
np.save("z.npy", outputs["embeddings"])
np.save("one.npy", predict(images[:1])["probabilities"])
"""


def test_the_guides_loader_needs_only_jax(exported, tmp_path):
  blocked = ("paws_jax", "flax", "safetensors", "tensorflow")
  code = f"{block('def load')}\npredict = load({str(exported)!r})\n{SAVE}"
  check_outputs(run_apart(tmp_path, code, blocked))


def test_the_description_lies_beside_the_program(exported):
  told = json.loads((exported / export.DESCRIPTION).read_text())
  assert told["class_names"] == list(random_classifier.CLASSES)
  assert told["files"]["platforms"] == ["cpu", "cuda", "tpu"]
  assert told["files"]["calling_convention_version"] >= 9
  names = {path.name for path in exported.iterdir()}
  assert names == {
    export.DESCRIPTION,
    told["files"]["program"],
    told["files"]["weights"],
  }


@pytest.mark.slow
def test_a_savedmodel_answers_without_jax(workdir, tmp_path):
  try:
    savedmodel.check_versions()
  except errors.MissingPackageError as error:
    # TensorFlow reads programs of JAX 0.10.
    if "jax 0.10" in str(error):
      raise
    pytest.skip(str(error))
  prepared = export.prepare(
    RECIPE, str(workdir), output=str(tmp_path), targets=["savedmodel"]
  )
  assert export.run(prepared) == 0
  written = tmp_path / "savedmodel"
  code = block("tf.saved_model.load").splitlines()
  path = next(line for line in code if "saved_model.load" in line)
  outputs = next(line for line in code if line.startswith("outputs"))
  load = re.sub(r'"runs.*?"', repr(str(written)), path)
  assert load != path
  code = f"""
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
{load}
def predict(images):
  {outputs}
  return outputs
{SAVE}"""
  check_outputs(run_apart(tmp_path, code, ("jax", "paws_jax")))
  told = json.loads((written / export.DESCRIPTION).read_text())
  assert told["files"]["signature"] == savedmodel.SIGNATURE
  assert str(ROOT).encode() not in (written / "saved_model.pb").read_bytes()
  # Variables are not in the graph as constants as well.
  program = program_lib.create(prepared.make())
  weights = sum(w.nbytes for w in program.weights.values())
  assert (written / "saved_model.pb").stat().st_size < weights


def test_a_file_of_onnx_answers_with_onnxruntime_alone(workdir, tmp_path):
  pytest.importorskip("onnx")
  pytest.importorskip("onnxruntime")
  prepared = export.prepare(
    RECIPE, str(workdir), output=str(tmp_path), targets=["onnx"]
  )
  assert export.run(prepared) == 0
  written = tmp_path / "onnx"
  told = json.loads((written / export.DESCRIPTION).read_text())
  assert told["written"] == ["model.onnx"]
  code = block("onnxruntime.InferenceSession")
  start = code.replace("runs/quickstart/export", str(tmp_path))
  assert start != code
  indented = "".join(f"  {line}\n" for line in start.splitlines())
  code = f"""
def predict(images):
{indented}
  return {{"probabilities": probabilities, "embeddings": embeddings}}
{SAVE}"""
  blocked = ("jax", "paws_jax", "onnx", "tensorflow")
  check_outputs(run_apart(tmp_path, code, blocked))
  # Written again, it takes the place of the one before; a changed file is kept.
  assert export.run(prepared) == 0
  (written / "model.onnx").write_bytes(b"mine")
  with pytest.raises(errors.InputError, match=r"written \(model.onnx\): move"):
    export.prepare(RECIPE, str(workdir), output=str(tmp_path), targets=["onnx"])


@pytest.mark.slow
def test_the_command_of_the_guide_writes_onnx(workdir):
  pytest.importorskip("onnx")
  guide = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
  (line,) = re.findall(r"^python -m .*--targets=onnx$", guide, re.MULTILINE)
  words = line.replace("runs/quickstart", str(workdir)).split()
  result = subprocess.run(
    [sys.executable, *words[1:]],
    cwd=ROOT,
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  written = workdir / "export" / "onnx"
  assert result.stdout.splitlines()[-1].startswith(f"onnx: {written} (0.")
  assert (written / "model.onnx").is_file()


def test_weights_for_pytorch_are_ours_under_its_names(workdir, tmp_path):
  prepared = export.prepare(
    RECIPE, str(workdir), output=str(tmp_path), targets=["torch"]
  )
  assert export.run(prepared) == 0
  written, classifier = tmp_path / "torch", prepared.make()
  state = safetensors.numpy.load_file(written / torch.ENCODER)
  variables = torch_names.from_torch(state, classifier.variables)
  jax.tree.map(np.testing.assert_array_equal, variables, classifier.variables)
  support_bank = safetensors.numpy.load_file(written / torch.BANK)
  np.testing.assert_array_equal(
    support_bank["embeddings"], classifier.support_bank.embeddings
  )
  np.testing.assert_array_equal(
    support_bank["labels"], classifier.support_bank.labels
  )
  told = json.loads((written / export.DESCRIPTION).read_text())
  # Python compiles the class when it is imported; that may be replaced, too.
  compiled = written / "__pycache__" / "encoder.cpython-311.pyc"
  compiled.parent.mkdir()
  compiled.write_bytes(b"")
  export.prepare(RECIPE, str(workdir), output=str(tmp_path), targets=["torch"])
  # What timm has under the same names are other networks.
  assert told["files"].keys() == {"format", "encoder", "module", "bank"}
  assert told["input"]["shape"] == ["b", 1, 8, 8]


@pytest.mark.parametrize(("width", "written"), [(1, True), (2, False)])
def test_only_what_timm_can_load_is_written_for_it(
  width, written, tmp_path, monkeypatch
):
  asked = []
  monkeypatch.setattr(
    torch.write_torch,
    "write_torch",
    lambda *unused, layout, **options: asked.append(layout),
  )
  made = random_classifier.make()
  model = {**made.model, "name": "resnet50", "width": width}
  program = types.SimpleNamespace(
    classifier=dataclasses.replace(made, model=model),
    interface={"input": {"before": ""}},
  )
  told = torch.write(program, tmp_path)
  assert ("timm" in asked) == ("trunk" in told["files"]) == written


def test_the_head_of_a_fine_tuned_run_is_exported_when_asked_for(
  workdir, tmp_path
):
  with pytest.raises(ValueError, match="fine-tune first"):
    export.prepare(RECIPE, str(workdir), head="finetuned")
  workdir_lib.prepare(tmp_path, config_lib.resolve(RECIPE))
  made = random_classifier.make(head=True)
  save_classifier.save(made, tmp_path / "finetuned")
  prepared = export.prepare(
    RECIPE, str(tmp_path), head="finetuned", targets=["torch"]
  )
  assert export.run(prepared) == 0
  written = tmp_path / "export" / "torch"
  told = json.loads((written / export.DESCRIPTION).read_text())
  assert told["decides"] == "a fine-tuned head"
  state = safetensors.numpy.load_file(written / torch.ENCODER)
  kernel = prepared.make().head.kernel
  np.testing.assert_array_equal(state["fc.fc2.weight"], kernel.T)


def test_a_classifier_of_one_class_is_refused_at_the_door(tmp_path):
  classifier = random_classifier.make()
  labels = np.zeros_like(classifier.support_bank.labels)
  support_bank = dataclasses.replace(classifier.support_bank, labels=labels)
  dataclasses.replace(classifier, support_bank=support_bank).save(tmp_path)
  with pytest.raises(ValueError, match=r"of 1 class.*--add_class=NAME=DIR"):
    export.prepare(RECIPE, str(tmp_path), classifier=str(tmp_path))


@pytest.mark.slow
def test_the_command_line(workdir, tmp_path):
  def command(targets):
    return subprocess.run(
      [
        *(sys.executable, "-m", "paws_jax.main", "--task=export"),
        *(f"--workdir={workdir}", f"--output={tmp_path}"),
        f"--targets={targets}",
      ],
      cwd=ROOT,
      env={
        "PATH": os.defpath,
        "HOME": str(tmp_path),
        "JAX_PLATFORMS": "cpu",
        **processes.compilation_cache(),
      },
      capture_output=True,
      text=True,
      timeout=300,
      check=False,
    )

  result = command("stablehlo,torch")
  assert result.returncode == 0, result.stderr
  for target, line in zip(
    ("stablehlo", "torch"), result.stdout.splitlines()[-2:], strict=True
  ):
    assert line.startswith(f"{target}: {tmp_path / target} (0.")
    assert (tmp_path / target / export.DESCRIPTION).is_file()
  result = command("tflite")
  assert result.returncode == 2
  assert result.stderr.startswith("error: --targets: unknown: 'tflite'")


@pytest.mark.parametrize(
  ("targets", "words"),
  [
    (
      ["stablehlo", "tflite"],
      "unknown: 'tflite'; give some of stablehlo, saved",
    ),
    ([""], "unknown: ''"),
    ([], "empty; give some of stablehlo"),
  ],
)
def test_unknown_targets_are_refused(targets, words, workdir):
  with pytest.raises(ValueError, match=f"--targets: {words}"):
    export.prepare(RECIPE, str(workdir), targets=targets)


@pytest.mark.parametrize(
  ("target", "package", "words"),
  [
    (
      "savedmodel",
      "tensorflow",
      "needs TensorFlow, which is not installed: pip install",
    ),
    (
      "savedmodel",
      "jax.experimental.jax2tf",
      "has no jax.experimental.jax2tf any more",
    ),
    (
      "onnx",
      "onnx",
      "needs onnx, which is not installed: pip install 'paws_jax[onnx]'; or",
    ),
  ],
)
def test_a_target_that_is_not_installed_is_refused(
  target, package, words, monkeypatch, workdir
):
  monkeypatch.setitem(sys.modules, package, None)
  with pytest.raises(
    errors.MissingPackageError, match=f"--targets={target}.*{re.escape(words)}"
  ):
    export.prepare(RECIPE, str(workdir), targets=["stablehlo", target])
  assert export.check_targets(["stablehlo "]) == ("stablehlo",)


def test_asking_for_a_savedmodel_does_not_load_tensorflow(monkeypatch):
  load = builtins.__import__

  def watch(name, *args, **options):
    assert not name.startswith("tensorflow")
    return load(name, *args, **options)

  monkeypatch.setattr(builtins, "__import__", watch)
  assert export.check_targets(["savedmodel"]) == ("savedmodel",)


@pytest.mark.slow
def test_a_jax_that_tensorflow_cannot_read_is_named(tmp_path, monkeypatch):
  tf = tf_runtime.load()
  from jax.experimental import jax2tf

  def convert(function, **options):
    def cannot_be_read(argument):
      with tf.control_dependencies([tf.debugging.Assert(False, ["vhlo"])]):
        return tf.identity(argument)

    return cannot_be_read

  monkeypatch.setattr(jax2tf, "convert", convert)
  with pytest.raises(
    errors.MissingPackageError,
    match=r"cannot read .* of jax .*pip install 'jax<",
  ):
    savedmodel.write(None, tmp_path)
  assert not list(tmp_path.iterdir())


def test_an_output_that_cannot_be_written_is_refused(workdir, tmp_path):
  file = tmp_path / "file"
  file.write_text("")
  with pytest.raises(ValueError, match=r"file is a file. Choose another"):
    export.prepare(RECIPE, str(workdir), output=str(file / "deep"))
  with pytest.raises(ValueError, match="no local directory: export to one"):
    export.prepare(RECIPE, str(workdir), output="gs://bucket/export")
  with pytest.raises(ValueError, match="--output is missing: give a directory"):
    export.prepare(None, "", classifier=str(workdir / "classifier"))


def test_an_output_without_the_right_to_write_is_refused(
  workdir, tmp_path, monkeypatch
):
  # Root may write anywhere: this asks no file system.
  monkeypatch.setattr(export.os, "access", lambda path, mode: False)
  with pytest.raises(ValueError, match=r"is not writable. Choose another"):
    export.prepare(RECIPE, str(workdir), output=str(tmp_path / "new"))
  assert not (tmp_path / "new").exists()


def test_a_directory_of_something_else_is_not_replaced(workdir, tmp_path):
  other = tmp_path / "stablehlo" / "mine.txt"
  other.parent.mkdir()
  other.write_text("mine")
  with pytest.raises(ValueError, match=r"is no export.*move it away"):
    export.prepare(RECIPE, str(workdir), output=str(tmp_path))
  assert other.read_text() == "mine"


def test_a_users_file_in_an_export_is_not_deleted(tmp_path, monkeypatch):
  save_classifier.save(random_classifier.make(), tmp_path / "classifier")
  workdir_lib.prepare(tmp_path, config_lib.resolve(random_classifier.recipe()))

  def write(program, directory):
    (directory / "deep").mkdir()
    (directory / "deep" / "model.jax").write_text("")
    return {}

  monkeypatch.setattr(stablehlo, "write", write)
  prepared = export.prepare(random_classifier.recipe(), str(tmp_path))
  export.run(prepared)
  export.run(prepared)
  mine = prepared.output / "stablehlo" / "deep" / "mine.txt"
  mine.write_text("mine")
  with pytest.raises(ValueError, match=r"written \(deep/mine\.txt\): move it"):
    export.prepare(random_classifier.recipe(), str(tmp_path))
  assert mine.read_text() == "mine"
  mine.unlink()
  export.run(export.prepare(random_classifier.recipe(), str(tmp_path)))
  # Files of the export that were changed are a user's, too.
  for name in ("deep/model.jax", export.DESCRIPTION):
    path = prepared.output / "stablehlo" / name
    before = path.read_text()
    path.write_text(before.replace("{", '{"note": "mine",', 1) or "mine")
    with pytest.raises(ValueError, match=rf"written \({name}\): move it"):
      export.prepare(random_classifier.recipe(), str(tmp_path))
    path.write_text(before)


def test_an_export_takes_the_place_of_the_one_before(tmp_path, monkeypatch):
  workdir_lib.prepare(tmp_path, config_lib.resolve(RECIPE))
  save_classifier.save(
    random_classifier.make(dtype="auto"), tmp_path / "classifier"
  )
  prepared = export.prepare(RECIPE, str(tmp_path))
  # A leftover of a command that was killed.
  (tmp_path / "export" / ".stablehlo.tmp").mkdir(parents=True)
  export.run(prepared)
  before = files(tmp_path / "export")
  assert [path for path in before if path.endswith("model.json")]
  program = program_lib.create(prepared.make())
  named = dict(program.description, class_names=["a", "b", "c"])
  other = dataclasses.replace(program, description=named)
  write = stablehlo.write

  def fail(program, directory):
    write(program, directory)
    raise OSError("no space left on device")

  with monkeypatch.context() as patch:
    patch.setattr(stablehlo, "write", fail)
    with pytest.raises(OSError, match="no space left"):
      export.write(other, prepared.output, "stablehlo")
  assert files(tmp_path / "export") == before
  export.write(other, prepared.output, "stablehlo")
  after = files(tmp_path / "export")
  assert after.keys() == before.keys()
  changed = {name for name in after if after[name] != before[name]}
  assert changed == {"stablehlo/model.json"}


def test_no_path_of_this_machine_is_exported(exported):
  root = str(ROOT).encode()
  for name, content in files(exported).items():
    assert root not in content, name
    assert b".py" not in content, name


def files(directory):
  """Contents by path."""
  return {
    str(path.relative_to(directory)): path.read_bytes()
    for path in directory.rglob("*")
    if path.is_file()
  }
