"""Vision transformers' weights under the names of others; golden outputs."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import errors
from paws_jax import models
from paws_jax.models import batch_norm
from paws_jax.models import vit
from paws_jax.weights import init_from
from tests import golden_reference

SETTINGS = batch_norm.LayerSettings(
  momentum=0.9, dtype=jnp.float32, param_dtype=jnp.float32
)
ARRAYS, CONFIG = golden_reference.load("vit_formula")
# The others take as long to compile.
FAST = ("timm_vit", "facebook_dinov3", "huggingface_dinov2_swiglu")
pytestmark = pytest.mark.unoptimized
TINY = vit.Shape(4, 24, 2, 2, grid=3)


def encoder(shape):
  return models.Encoder(trunk=vit.ViT(shape, SETTINGS))


def template(shape, channels=3):
  images = jnp.zeros((1, shape.patch, shape.patch, channels))
  return jax.eval_shape(
    lambda key: encoder(shape).init(key, images, train=False),
    jax.random.key(0),
  )


def value(name, shape):
  """The weights of a file; of what is no weight, what the files have."""
  if name.endswith("bias_mask"):
    # Of the keys there is none; what was saved there may be anything.
    return np.repeat(np.array([1, np.nan, 1], np.float32), shape[0] // 3)
  return golden_reference.fill(name, tuple(shape))


def write(path, case):
  names = CONFIG["cases"][case]["names"]
  np.savez(path, **{name: value(name, size) for name, size in names.items()})
  return str(path)


@pytest.mark.parametrize(
  "case",
  [
    pytest.param(case, marks=[] if case in FAST else pytest.mark.slow)
    for case in CONFIG["cases"]
  ],
)
def test_outputs_are_those_of_the_code_that_the_file_is_for(case, tmp_path):
  form = CONFIG["cases"][case]
  shape = vit.Shape(**form["shape"])
  path = write(tmp_path / "weights.npz", case)
  variables, line = init_from.init_from(path, template(shape))
  images = golden_reference.normalise(
    ARRAYS[f"images_{form['images']}"], "imagenet"
  )
  features, _ = jax.jit(lambda v, x: encoder(shape).apply(v, x, train=False))(
    variables, images
  )
  expected = ARRAYS[f"{case}_f32"]
  np.testing.assert_allclose(features, expected, atol=1e-5, rtol=0)
  assert ("mask_token" in line) == ("mask_token" in str(form["names"]))


@pytest.mark.parametrize(
  ("case", "origin", "known"),
  [
    ("timm_vit", "vision transformer weights", False),
    ("facebook_dinov2", "DINOv2 weights", True),
    ("huggingface_dinov2", "DINOv2 weights", True),
    ("facebook_dinov3", "DINOv3 weights", True),
    ("huggingface_dinov3", "DINOv3 weights", True),
    ("timm_dinov3", "DINOv3 weights", True),
  ],
)
def test_mean_and_std_are_those_of_dinov2_and_dinov3(
  case, origin, known, tmp_path
):
  found = init_from.statistics(write(tmp_path / "w.npz", case))
  assert found[1] == origin
  assert (found[0] is not None) == known


def test_positions_of_another_number_of_patches_are_interpolated(tmp_path):
  path = write(tmp_path / "w.npz", "timm_vit")
  shape = vit.Shape(**CONFIG["cases"]["timm_vit"]["shape"] | {"grid": 2})
  variables, line = init_from.init_from(path, template(shape))
  assert "pos_embed of 3 x 3 patches is interpolated to 2 x 2" in line
  given = golden_reference.fill("pos_embed", (1, 10, 24))
  np.testing.assert_allclose(
    variables["params"]["trunk"]["pos_embed"],
    vit.resize_positions(jnp.asarray(given), (2, 2)),
    atol=1e-6,
  )


def test_grey_images_are_said(tmp_path):
  path = write(tmp_path / "w.npz", "timm_vit")
  variables, line = init_from.init_from(path, template(TINY, channels=1))
  assert "images are grey: patch_embed.proj.weight is summed" in line
  kernel = golden_reference.fill("patch_embed.proj.weight", (24, 3, 4, 4))
  np.testing.assert_allclose(
    variables["params"]["trunk"]["patch_embed"]["kernel"][:, :, 0],
    kernel.sum(1).transpose(1, 2, 0),
    atol=1e-6,
  )


@pytest.mark.parametrize(
  ("case", "form", "message"),
  [
    # A network of another patch, width, depth or kind.
    ("timm_vit", {"patch": 2}, r"shape of patch_embed\.proj\.weight: given"),
    ("timm_vit", {"depth": 3}, r"missing: blocks\.2\.attn\.qkv\.weight"),
    ("timm_vit", {"layer_scale": True}, r"missing: blocks\.0\.ls1\.gamma"),
    ("timm_vit", {"registers": 4}, "missing: reg_token"),
    ("facebook_dinov2", {}, r"unknown: blocks\.0\.ls1\.gamma"),
    ("huggingface_dinov2_registers", {}, "unknown: reg_token"),
    ("huggingface_dinov3", {}, "missing: pos_embed"),
    ("huggingface_dinov2", {"dim": 48}, r"shape of cls_token: given \(1, 1, 2"),
  ],
)
def test_weights_of_another_network_are_refused(case, form, message, tmp_path):
  path = write(tmp_path / "w.npz", case)
  shape = vit.Shape(**{"patch": 4, "dim": 24, "depth": 2, "heads": 2} | form)
  with pytest.raises(errors.WeightsError, match=message):
    init_from.init_from(path, template(shape))


TIMM = {
  "vit_small_patch16_224": {},
  "vit_small_patch14_dinov2": {"layer_scale": True},
  "vit_small_patch14_reg4_dinov2": {"layer_scale": True, "registers": 4},
  "vit_small_patch16_dinov3": {
    "layer_scale": True,
    "registers": 4,
    "grid": 0,
    "epsilon": 1e-5,
  },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_outputs_are_those_of_timm(name, tmp_path):
  torch = pytest.importorskip("torch")
  timm = pytest.importorskip("timm")
  model = timm.create_model(
    name,
    embed_dim=24,
    depth=2,
    num_heads=2,
    img_size=4 * (14 if "patch14" in name else 16),
    dynamic_img_size=True,
  ).eval()
  patch = 14 if "patch14" in name else 16
  state = {
    key: golden_reference.fill(key, tuple(tensor.shape))
    for key, tensor in model.state_dict().items()
  }
  model.load_state_dict({k: torch.tensor(v) for k, v in state.items()})
  np.savez(tmp_path / "w.npz", **state)
  shape = vit.Shape(**{**vars(TINY), "grid": 4, "patch": patch, **TIMM[name]})
  variables, _ = init_from.init_from(str(tmp_path / "w.npz"), template(shape))
  rng = np.random.default_rng(zlib.crc32(name.encode()))
  # Positions for more patches of one side, and for fewer of the other.
  images = rng.standard_normal((2, 6 * patch, 3 * patch, 3), np.float32)
  found, _ = encoder(shape).apply(variables, images, train=False)
  with torch.no_grad():
    tokens = model.forward_features(torch.tensor(images).permute(0, 3, 1, 2))
  np.testing.assert_allclose(found, tokens[:, 0].numpy(), atol=1e-5, rtol=0)
