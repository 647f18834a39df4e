"""Training of any method on toy images, in float64 on any number of devices."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from paws_jax import config as config_lib
from paws_jax import optim
from paws_jax.data import memory_pipeline
from paws_jax.data import sampling
from paws_jax.methods import base
from paws_jax.parallel import mesh as mesh_lib
from paws_jax.runs import checkpoint
from paws_jax.training import checkpoints
from paws_jax.training import state as state_lib
from paws_jax.training import step as step_lib
from paws_jax.training import views as views_lib
from tests import tiny_recipe
from tests import toy_method

NUM_IMAGES = 26
NUM_CLASSES = 3
BATCH_SIZE = 12
# Of schedules; more than are taken.
TOTAL_STEPS = 50


@dataclasses.dataclass(frozen=True)
class Setup:
  """A trainer with its images; compiles its step and first state once."""

  trainer: state_lib.Trainer
  pipeline: memory_pipeline.InMemory
  steps_per_call: int = 1
  one_program: bool = False
  like: "Setup | None" = None

  @functools.cached_property
  def _initial_state(self):
    if self.like is None:
      inputs = self.pipeline.input_shapes(1)
      batch = jax.eval_shape(self.pipeline.batch, inputs, jnp.int32(0))
      state = step_lib.init_state(self.trainer, batch)
    else:
      state = self.like.initial_state().replace(extra={})
      state = mesh_lib.replicate(jax.device_get(state), self.trainer.mesh)
    return step_lib.add_extra(self.trainer, state)

  def initial_state(self):
    """A copy, since a step destroys the state that it is given."""
    return jax.tree.map(
      lambda x: jax.device_put(x, x.sharding, may_alias=False),
      self._initial_state,
    )

  @functools.cached_property
  def compiled(self):
    steps = self.steps_per_call
    call = step_lib.make_train_call(
      self.trainer, self.pipeline, steps, one_program=self.one_program
    )
    inputs = self.pipeline.inputs(0, steps)
    return call.lower(self._initial_state, inputs).compile()

  def run(self, state, first_step, num_steps):
    """(state after the steps, metrics of each)."""
    rows, steps = [], self.steps_per_call
    for step in range(first_step, first_step + num_steps, steps):
      inputs = self.pipeline.inputs(step, steps)
      state, metrics = self.compiled(state, inputs)
      rows += [
        {k: float(v[i]) for k, v in metrics.items()} for i in range(steps)
      ]
    return state, rows

  def logical_extra(self, state):
    """What a checkpoint holds of `extra`, on the host."""
    shapes = step_lib.extra_shapes(self.trainer, state)
    return jax.device_get(
      state_lib.logical_extra(self.trainer, state.extra, shapes)
    )

  def save(self, directory, step, state):
    with checkpoint.Checkpointer(directory) as checkpointer:
      checkpoints.save(checkpointer, self.trainer, step, state, {})

  def restore(self, directory, **options):
    with checkpoint.Checkpointer(directory) as checkpointer:
      _, state, _ = checkpoints.restore_latest(
        checkpointer, self.trainer, self.initial_state(), **options
      )
    return state


def without_small(section):
  """Section `views` without its small crops."""
  specs = {k: v for k, v in section.specs.items() if k != "small"}
  return dataclasses.replace(section, specs=specs)


def _views():
  section = tiny_recipe.get_config().views
  section.large.update(size=6, flip_probability=0.5)
  section.small.count = 0
  section.update(mean=(0.5,) * 3, std=(0.25,) * 3)
  return config_lib.build_views(section)


def make(
  make_method,
  num_devices,
  *,
  learning_rate=0.05,
  num_ids=NUM_IMAGES,
  steps_per_call=1,
  chunks=1,
  bn_group_size=0,
  one_program=False,
  like=None,
):
  """Sets up a run on the first devices; call it in x64.

  Args:
    make_method: of axis_name, gives a method on the toy encoder.
    num_devices: of the mesh.
    learning_rate: of SGD.
    num_ids: images that a method believes there are.
    steps_per_call: steps of one compiled call.
    chunks: of a device, for which the pipeline pads.
    bn_group_size: of the mesh.
    one_program: whether a step in chunks is one program.
    like: a setup on other devices, whose first state is the same: it need not
      be compiled again.
  """
  mesh = mesh_lib.make_mesh(
    jax.devices()[:num_devices], bn_group_size=bn_group_size
  )
  method = make_method(mesh_lib.AXES)
  rng = np.random.default_rng(3)
  patterns = rng.uniform(40, 215, (NUM_CLASSES, 8, 8, 3))
  labels = (np.arange(NUM_IMAGES) % NUM_CLASSES).astype(np.int32)
  noise = rng.normal(0, 20, (NUM_IMAGES, 8, 8, 3))
  images = np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8)
  index = sampling.label_index(
    np.arange(15), labels[:15], class_names=tuple("abc")
  )
  views = toy_method.section_of(method, _views())
  schedule = optim.warmup_cosine(
    start_lr=learning_rate / 4,
    peak_lr=learning_rate,
    final_lr=learning_rate / 10,
    warmup_steps=2,
    total_steps=TOTAL_STEPS,
  )
  support = config_lib.Support(
    classes_per_step=NUM_CLASSES, images_per_class=2, num_views=2
  )
  facts = base.Facts(
    num_images=num_ids,
    num_classes=NUM_CLASSES,
    class_counts=(5,) * NUM_CLASSES,
    batch_size=BATCH_SIZE,
    steps_per_epoch=NUM_IMAGES // BATCH_SIZE,
    total_steps=TOTAL_STEPS,
    labels=np.where(np.arange(num_ids) < 15, np.resize(labels, num_ids), -1),
  )
  return Setup(
    steps_per_call=steps_per_call,
    one_program=one_program,
    like=like,
    trainer=state_lib.Trainer(
      method=dataclasses.replace(method, facts=facts),
      optimizer=optim.sgd(
        schedule, weight_decay=1e-4, momentum=0.9, nesterov=False
      ),
      schedule=schedule,
      views=views_lib.step_views(method, views),
      num_support_views=support.num_views,
      seed=7,
      mesh=mesh,
      facts=facts,
    ),
    pipeline=memory_pipeline.InMemory(
      images,
      index,
      support=support,
      batch_size=BATCH_SIZE,
      seed=7,
      pool=np.arange(NUM_IMAGES),
      mesh=mesh,
      with_unlabelled=bool(method.views(views)),
      chunks=chunks,
    ),
  )
