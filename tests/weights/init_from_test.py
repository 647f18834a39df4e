"""Weights of all origins into an encoder, held to the golden numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from paws_jax import errors
from paws_jax import models
from paws_jax.runs import checkpoint
from paws_jax.training import state as state_lib
from paws_jax.weights import init_from
from paws_jax.weights import torch_names
from paws_jax.weights import write_torch
from tests import processes
from tests import random_classifier
from tests import torch_archives
from tests.models import golden_test as models_golden_test

SECTION = models_golden_test.SECTION | {"name": "resnet_tiny"}


def _shapes(encoder, channels=3):
  return jax.eval_shape(
    lambda key: encoder.init(
      key, jnp.zeros((1, 32, 32, channels)), train=False
    ),
    jax.random.key(0),
  )


def _variables(seed=0, **fields):
  """Random variables of a tiny encoder, and what they are as a state dict."""
  rng = np.random.default_rng(seed)
  variables = jax.tree.map(
    lambda leaf: rng.uniform(0.5, 1, leaf.shape).astype(np.float32),
    _shapes(models.create(SECTION | fields)),
  )
  return variables, dict(torch_names.to_torch(variables))


def _init_from(path, variables):
  """What becomes of variables, and the line."""
  return init_from.init_from(str(path), variables)


def _assert_equal(actual, expected):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_a_file_of_a_directory_is_answered_with_the_directory(tmp_path):
  random_classifier.make().save(tmp_path / "classifier")
  (tmp_path / "config.json").write_text("{}")
  for name in ("classifier/encoder.safetensors", "classifier/classifier.json"):
    with pytest.raises(
      errors.WeightsError, match=r"directory, .*/classifier\."
    ):
      _init_from(tmp_path / name, {"params": {}, "batch_stats": {}})
  with pytest.raises(errors.WeightsError, match=f"directory, {tmp_path}"):
    _init_from(tmp_path / "config.json", {"params": {}, "batch_stats": {}})


def _part(variables, *names):
  """{"params": ..., "batch_stats": ...} below a path."""
  found = {}
  for collection, tree in variables.items():
    for name in names:
      tree = tree[name]
    found[collection] = tree
  return found


def _save(path, state):
  if path.suffix == ".npz":
    np.savez(path, **state)
  elif path.suffix == ".safetensors":
    safetensors.numpy.save_file(
      {n: np.ascontiguousarray(a) for n, a in state.items()}, path
    )
  else:
    # As the public PAWS checkpoints are.
    state = {f"module.{n}": np.ascontiguousarray(a) for n, a in state.items()}
    counters = {"module.bn1.num_batches_tracked": np.array(5)}
    tree = {"encoder": state | counters, "epoch": 3, "opt": {"lr": 0.1}}
    torch_archives.save(path, tree)
  return path


@pytest.mark.parametrize(
  "name",
  [
    # Compiling the others takes 5 to 10 s.
    pytest.param(name, marks=[] if name == "wrn_tiny" else [pytest.mark.slow])
    for name in ("wrn_tiny", "wrn_tiny_pred_formula", "resnet_tiny_formula")
  ],
)
def test_embeddings_equal_the_references_from_its_files_and_from_ours(
  name, tmp_path
):
  encoder, variables, groups, arrays = models_golden_test._load(
    name, jnp.float32
  )
  template = _shapes(encoder)
  state = torch_names.to_torch(variables)
  theirs, line = _init_from(_save(tmp_path / "a.pth.tar", state), template)
  assert line == (
    f"init_from: {len(state)} arrays from {tmp_path / 'a.pth.tar'} "
    "(PAWS weights)"
  )
  _assert_equal(theirs, variables)
  write_torch.write_torch(theirs, tmp_path / "b.safetensors")
  ours, _ = _init_from(tmp_path / "b.safetensors", template)
  apply = jax.jit(lambda variables, x: encoder.apply(variables, x, train=False))
  outputs = [apply(ours, group) for group in groups]
  h, z = (np.concatenate(part) for part in zip(*outputs, strict=True))
  for actual, key in ((h, "eval_h_f64"), (z, "eval_z_f64")):
    expected = arrays[key]
    np.testing.assert_allclose(
      actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )


@pytest.mark.parametrize("ending", ["safetensors", "npz", "pth"])
def test_all_kinds_of_files(ending, tmp_path):
  variables, state = _variables()
  path = _save(tmp_path / f"a.{ending}", state)
  _assert_equal(_init_from(path, _variables(seed=1)[0])[0], variables)


def test_of_a_torchvision_file_the_trunk_is_taken(tmp_path):
  variables, state = _variables()
  before, _ = _variables(seed=1)
  state = {
    name: array
    for name, array in state.items()
    if not name.startswith(("fc.", "pred."))
  }
  path = tmp_path / "a.npz"
  classifier = {"fc.weight": np.ones((1000, 128)), "fc.bias": np.ones(1000)}
  found, line = _init_from(_save(path, state | classifier), before)
  _assert_equal(_part(found, "trunk"), _part(variables, "trunk"))
  for head in ("projection", "prediction"):
    _assert_equal(_part(found, head), _part(before, head))
  assert line == (
    f"init_from: 85 arrays from {path} (torchvision or timm weights); "
    "26 keep their initial values (prediction, projection); not used: "
    "fc.weight, fc.bias"
  )
  found, line = _init_from(_save(path, state), before)
  _assert_equal(_part(found, "trunk"), _part(variables, "trunk"))
  assert "trunk only" in line
  assert "left out" not in line


@pytest.mark.parametrize("layout", ["PAWS", "trunk only"])
def test_weights_for_color_images_see_grey_ones_as_three_equal_channels(
  layout, tmp_path
):
  _, state = _variables()
  if layout != "PAWS":
    heads = ("fc.", "pred.")
    state = {n: a for n, a in state.items() if not n.startswith(heads)}
  encoder = models.create(SECTION)
  grey = jax.tree.map(
    lambda leaf: np.ones(leaf.shape, np.float32), _shapes(encoder, channels=1)
  )
  found, line = _init_from(_save(tmp_path / "a.pth", state), grey)
  assert line.endswith(
    "; images are grey: conv1.weight is summed over its three channels, as if "
    "each image had them"
  )
  np.testing.assert_allclose(
    found["params"]["trunk"]["conv1"]["kernel"][:, :, 0],
    state["conv1.weight"].sum(axis=1).transpose(1, 2, 0),
    rtol=1e-6,
  )


def test_of_a_fine_tuned_file_the_first_layer_of_the_head_is_taken(tmp_path):
  variables, _ = _variables()
  before, _ = _variables(seed=1)
  head = {"kernel": np.ones((128, 5)), "bias": np.zeros(5)}
  path = tmp_path / "a.safetensors"
  write_torch.write_torch(variables, path, head=head)
  found, line = _init_from(path, before)
  for part in (("trunk",), ("projection", "bn1")):
    _assert_equal(_part(found, *part), _part(variables, *part))
  _assert_equal(
    found["params"]["projection"]["fc1"],
    variables["params"]["projection"]["fc1"],
  )
  for part in (("prediction",), ("projection", "bn2")):
    _assert_equal(_part(found, *part), _part(before, *part))
  assert "91 arrays" in line
  assert "fine-tuned PAWS" in line
  assert "not used: fc.fc2" in line


def test_a_prediction_head_that_the_encoder_lacks_is_left_out(tmp_path):
  variables, state = _variables()
  before, _ = _variables(seed=1, prediction_head=False)
  found, line = _init_from(_save(tmp_path / "a.pth", state), before)
  assert set(found["params"]) == {"trunk", "projection"}
  _assert_equal(_part(found, "trunk"), _part(variables, "trunk"))
  assert "not used: pred." in line
  assert "and 8 more" in line


def test_a_missing_prediction_head_stays_initial(tmp_path):
  variables, state = _variables(prediction_head=False)
  before, _ = _variables(seed=1)
  found, line = _init_from(_save(tmp_path / "a.pth", state), before)
  _assert_equal(_part(found, "projection"), _part(variables, "projection"))
  _assert_equal(_part(found, "prediction"), _part(before, "prediction"))
  assert line.endswith("; 12 keep their initial values (prediction)")


def _refused(path, variables, message):
  with pytest.raises(errors.WeightsError, match=message) as error:
    _init_from(path, variables)
  assert str(path) in str(error.value)
  return str(error.value)


def test_all_that_does_not_fit_is_listed_by_name(tmp_path):
  _, state = _variables()
  del state["fc.fc2.bias"], state["layer1.0.bn1.running_var"]
  state["layer9.weight"] = np.zeros(3)
  state["conv1.weight"] = state["conv1.weight"][:, :1]
  path = _save(tmp_path / "a.pth", state)
  message = _refused(path, _variables()[0], "do not fit this encoder")
  lines = message.splitlines()
  assert sorted(line.strip() for line in lines[1:-1]) == [
    "missing: fc.fc2.bias",
    "missing: layer1.0.bn1.running_var",
    "shape of conv1.weight: given (4, 1, 7, 7), the encoder has (4, 3, 7, 7)",
    "unknown: layer9.weight",
  ]
  assert lines[0].startswith(f"model.init_from={path} (PAWS weights): ")
  for field in ("model.name", "projection_hidden_dim", "output_dim"):
    assert field in lines[-1]


def test_weights_of_another_architecture_do_not_fill_the_screen(tmp_path):
  _, state = _variables()
  other, _ = _variables(name="wide_resnet16")
  message = _refused(_save(tmp_path / "a.pth", state), other, "and .* more")
  assert len(message.splitlines()) < 40


def test_weights_that_are_no_finite_floats_are_named(tmp_path):
  _, state = _variables()
  state["bn1.bias"] = np.full(4, np.nan, np.float32)
  path = _save(tmp_path / "a.pth", state)
  _refused(path, _variables()[0], "(?s)not finite.*params/trunk/bn1/bias")
  state["bn1.bias"] = np.zeros(4, np.int64)
  path = _save(tmp_path / "a.pth", state)
  _refused(path, _variables()[0], "(?s)not floating.*bn1.bias: int64")


@pytest.mark.parametrize("ending", [".pth", ".safetensors", ".npz"])
def test_a_variance_below_0_is_named(tmp_path, ending):
  _, state = _variables()
  state["bn1.running_var"] = np.float32([1, 1, -1e-6, 1])
  _refused(
    _save(tmp_path / f"a{ending}", state),
    _variables()[0],
    "(?s)variances below 0.*batch_stats/trunk/bn1/var",
  )


def test_names_in_a_file_do_not_control_the_terminal(tmp_path):
  _, state = _variables()
  state["\x1b[2J" + "x" * 10_000] = np.zeros(1, np.float32)
  path = _save(tmp_path / "a.safetensors", state)
  message = _refused(path, _variables()[0], r"unknown: \?\[2Jxxx")
  assert len(message) < 1500


def test_places_without_weights_are_named(tmp_path):
  variables, _ = _variables()
  with pytest.raises(FileNotFoundError, match="absent does not exist"):
    _init_from(tmp_path / "absent", variables)
  _refused(tmp_path, variables, "neither a run's workdir nor a saved")


def test_the_path_is_relative_to_the_current_directory(tmp_path, monkeypatch):
  variables, state = _variables()
  _save(tmp_path / "a.pth", state)
  with pytest.raises(FileNotFoundError, match="does not exist"):
    _init_from("a.pth", variables)
  monkeypatch.chdir(tmp_path)
  _, line = _init_from("a.pth", variables)
  assert "a.pth" in line


def test_another_run(tmp_path):
  variables, _ = _variables()
  before, _ = _variables(seed=1)
  # Of few arrays: a checkpoint compiles something for each.
  few = {
    collection: {
      "trunk": {"bn1": tree["trunk"]["bn1"]},
      # Of a method that keeps more than an encoder.
      "target": {"kernel": np.ones(3)},
    }
    for collection, tree in variables.items()
  }
  state = state_lib.TrainState(
    step=jnp.int32(4),
    params=few["params"],
    batch_stats=few["batch_stats"],
    opt_state=(),
    finite=jnp.ones((), bool),
  )
  with checkpoint.Checkpointer(tmp_path / "checkpoints") as checkpointer:
    stored = state_lib.to_stored(jax.tree.map(jnp.asarray, state))
    checkpointer.save(4, stored, {})
  place = {c: {"trunk": {"bn1": before[c]["trunk"]["bn1"]}} for c in before}
  found, line = _init_from(tmp_path, place)
  _assert_equal(found, {c: {"trunk": tree["trunk"]} for c, tree in few.items()})
  assert line == f"init_from: 4 arrays from {tmp_path} (a run, step 4)"
  _refused(tmp_path, before, r"(?s)a run, step 4.*missing: conv1\.weight")


def test_a_saved_classifier(tmp_path):
  saved = random_classifier.make()
  saved.save(tmp_path)
  found, line = _init_from(tmp_path, random_classifier.make(seed=1).variables)
  _assert_equal(found, saved.variables)
  assert "a saved classifier" in line


@pytest.mark.slow
def test_processes_must_read_the_same(tmp_path):
  _, state = _variables()
  for process in (0, 1):
    directory = tmp_path / str(process)
    directory.mkdir()
    _save(directory / "same.npz", state)
    changed = state["bn1.bias"] + process
    _save(directory / "other.npz", state | {"bn1.bias": changed})
  code = f"""
import os, sys
process, num_processes, port = map(int, sys.argv[1:])
from paws_jax.distributed import launch as launch_lib
from paws_jax.distributed import lifecycle as distributed
distributed.initialize(
  launch_lib.Launch(f"localhost:{{port}}", num_processes, process, "test"),
  timeout_seconds=60,
)
from tests.weights import init_from_test as test
variables, _ = test._variables(seed=1)
os.chdir(os.path.join({str(tmp_path)!r}, str(process)))
for path in ("same.npz", "other.npz"):
  try:
    print(test._init_from(path, variables)[1])
  except Exception as error:
    print(type(error).__name__, str(error).partition(" is ")[0])
"""
  with processes.start_code(code, num_processes=2) as group:
    for finished in group.wait(seconds=120):
      assert processes.lines(finished) == [
        "init_from: 111 arrays from same.npz (PAWS weights)",
        "DisagreementError the processes do not agree: "
        "model.init_from=other.npz",
      ], finished.err
