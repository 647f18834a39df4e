"""The losses of classifiers against golden numbers, and their refusals."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import errors
from paws_jax import losses
from paws_jax.losses import consistency
from paws_jax.losses import uda
from tests import golden_reference

pytestmark = pytest.mark.unoptimized

X64 = pytest.mark.parametrize("x64", [True, False], ids=["x64", "float32"])


def _files(method):
  return pytest.mark.parametrize(
    "name", golden_reference.names(f"semi/{method}_loss_*")
  )


def _mean_label_loss(logits, labels):
  return jnp.mean(consistency.label_cross_entropy(logits, labels))


def _fixmatch(config, labels, x, w, s):
  loss_u, mask = losses.fixmatch_loss(
    w,
    s,
    threshold=config["threshold"],
    temperature=config["T"],
    hard=config["hard"],
  )
  loss_x = _mean_label_loss(x, labels)
  total = loss_x + config["lambda_u"] * loss_u
  return total, {"loss_x": loss_x, "loss_u": loss_u, "mask": mask}


def _uda(config, labels, x, w, s):
  fields = {
    "temperature": config["T"],
    "threshold": config["threshold"],
    "mask_on": config["mask_on"],
    "strict": config["comparison"] == ">",
  }
  both = {
    form: losses.uda_loss(w, s, form=form, **fields) for form in ("kl", "ce")
  }
  loss_u, mask = both[config["form"]]
  loss_x = losses.tsa_cross_entropy(
    x, labels, threshold=config["tsa_threshold"]
  )
  entropy = jnp.mean(uda.entropy(w))
  _, kept = uda.tsa_rows(x, labels, threshold=config["tsa_threshold"])
  total = loss_x + config["lambda_u"] * loss_u
  total += config["entropy_weight"] * entropy
  return total, {
    "loss_x": loss_x,
    "loss_u_kl": both["kl"][0],
    "loss_u_ce": both["ce"][0],
    "entropy": entropy,
    "mask": mask,
    "sup_mask": kept,
  }


def _pseudo_label(config, labels, x, u):
  loss_u, mask = losses.pseudo_label_loss(
    u, threshold=config["threshold"], strict=config["comparison"] == ">"
  )
  loss_x = _mean_label_loss(x, labels)
  total = loss_x + config["weight"] * loss_u
  return total, {"loss_x": loss_x, "loss_u": loss_u, "mask": mask}


def _mean_teacher(config, labels, x, student, teacher):
  loss_u = {
    kind: losses.mean_teacher_loss(student, teacher, kind=kind)
    for kind in ("mse", "kl")
  }
  loss_x = _mean_label_loss(x, labels)
  total = loss_x + config["weight"] * loss_u[config["kind"]]
  return total, {
    "loss_x": loss_x,
    "loss_mse": loss_u["mse"],
    "loss_kl": loss_u["kl"],
  }


def _check(name, function, keys, x64):
  arrays, config = golden_reference.load(f"semi/{name}")
  labels = jnp.asarray(arrays["labels"])
  with jax.enable_x64(x64):
    (loss, values), grads = jax.value_and_grad(
      lambda *logits: function(config, labels, *logits),
      argnums=tuple(range(len(keys))),
      has_aux=True,
    )(*golden_reference.cast(arrays, keys, x64))
  rtol = 1e-8 if x64 else 2e-6
  for key, value in ({"loss": loss} | values).items():
    if key in arrays:
      assert value.dtype == bool
      np.testing.assert_array_equal(value, arrays[key], err_msg=key)
      continue
    assert value.dtype == (np.float64 if x64 else np.float32)
    np.testing.assert_allclose(
      value, arrays[f"{key}_f64"], rtol=rtol, atol=1e-15 if x64 else 2e-7
    )
  for key, grad in zip(keys, grads, strict=True):
    expected = arrays[f"grad_{key}_f64"]
    atol = rtol * np.abs(expected).max() + (1e-15 if x64 else 1e-7)
    np.testing.assert_allclose(
      grad, expected, rtol=0, atol=atol, err_msg=f"{name} {key}"
    )


@X64
@_files("fixmatch")
def test_fixmatch_equals_the_golden_numbers(name, x64):
  _check(name, _fixmatch, ("logits_x", "logits_w", "logits_s"), x64)


@X64
@_files("uda")
def test_uda_equals_the_golden_numbers(name, x64):
  _check(name, _uda, ("logits_x", "logits_w", "logits_s"), x64)


@X64
@_files("pseudo_label")
def test_pseudo_label_equals_the_golden_numbers(name, x64):
  _check(name, _pseudo_label, ("logits_x", "logits_u"), x64)


@X64
@_files("mean_teacher")
def test_mean_teacher_equals_the_golden_numbers(name, x64):
  keys = ("logits_x", "logits_student", "logits_teacher")
  _check(name, _mean_teacher, keys, x64)


def test_annealing_follows_the_schedules():
  path = golden_reference.DIRECTORY / "semi" / "schedules.json"
  schedules = json.loads(path.read_text(encoding="utf-8"))["tsa"]
  for name, schedule in schedules.items():
    for progress, expected in schedule["values"]:
      actual = losses.tsa_threshold(name, progress, num_classes=schedule["K"])
      np.testing.assert_allclose(actual, expected, rtol=1e-6)
  assert set(schedules) == set(uda.SCHEDULES)
  assert losses.tsa_threshold("none", 0.3, num_classes=4) == 1


def test_smoothed_labels_spread_a_share_over_all_classes():
  logits = jnp.log(jnp.asarray([[0.5, 0.25, 0.25]]))
  actual = consistency.label_cross_entropy(
    logits, jnp.asarray([0]), smoothing=0.3
  )
  expected = -(0.8 * np.log(0.5) + 0.2 * np.log(0.25))
  np.testing.assert_allclose(actual, [expected], rtol=1e-6)


LOGITS = np.zeros((2, 3), np.float32)


@pytest.mark.parametrize("threshold", [0, -0.1, 1.5, 2])
def test_a_threshold_out_of_range_is_refused(threshold):
  labels = np.zeros(2, np.int32)
  fields = {"threshold": threshold}
  with pytest.raises(errors.InputError, match="at most 1"):
    losses.fixmatch_loss(LOGITS, LOGITS, **fields)
  with pytest.raises(errors.InputError, match="at most 1"):
    losses.uda_loss(LOGITS, LOGITS, temperature=1.0, **fields)
  with pytest.raises(errors.InputError, match="at most 1"):
    losses.pseudo_label_loss(LOGITS, **fields)
  with pytest.raises(errors.InputError, match="at most 1"):
    losses.tsa_cross_entropy(LOGITS, labels, **fields)


def test_inconsistent_shapes_and_unknown_choices_are_refused():
  other = np.zeros((3, 3), np.float32)
  with pytest.raises(ValueError, match=r"strong_logits .* \(2, 3\) and \(3"):
    losses.fixmatch_loss(LOGITS, other, threshold=0.9)
  with pytest.raises(ValueError, match="strong_logits must be"):
    losses.uda_loss(LOGITS, other, temperature=1.0, threshold=0.9)
  with pytest.raises(ValueError, match="teacher_logits must be"):
    losses.mean_teacher_loss(LOGITS, other)
  with pytest.raises(ValueError, match="logits must be"):
    losses.pseudo_label_loss(LOGITS[0], threshold=0.9)
  with pytest.raises(ValueError, match="labels"):
    losses.tsa_cross_entropy(LOGITS, np.zeros(3, np.int32), threshold=0.9)
  with pytest.raises(errors.InputError, match="known are 'mse', 'kl'"):
    losses.mean_teacher_loss(LOGITS, LOGITS, kind="l1")
  for field in ("mask_on", "form"):
    with pytest.raises(errors.InputError, match=f"{field} is 'both'; known"):
      losses.uda_loss(
        LOGITS, LOGITS, temperature=1.0, threshold=0.9, **{field: "both"}
      )
