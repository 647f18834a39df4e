"""A method with everything that a state can hold, for tests of the seam.

SimCLR, pulled towards an average of its own weights, away from a queue that is
spread over the devices, with a memory of one embedding for each image, and a
number that counts the epochs.
"""

import dataclasses

import jax
import jax.numpy as jnp

from paws_jax import losses
from paws_jax.methods import encoding
from paws_jax.methods import simclr
from paws_jax.methods import tables
from paws_jax.parallel import gather
from paws_jax.parallel import mesh

WIDTH = 8


@dataclasses.dataclass(frozen=True)
class Stateful(simclr.Simclr):
  """NT-Xent, a pull to the average network, a push from the queue."""

  shown_losses = ("nt_xent", "pull", "push")
  # No multiple of 3 or 4 devices: the table is padded there.
  queue_size = 14

  def init_extra(self, key, params, batch_stats, facts):
    shape = (self.queue_size, WIDTH)
    return {
      "average": {"params": params, "batch_stats": batch_stats},
      "queue": losses.normalize(jax.random.normal(key, shape)),
      "position": jnp.zeros((), jnp.int32),
      "memory": jnp.zeros((facts.num_images, WIDTH)),
      "epochs": jnp.zeros((), jnp.int32),
    }

  @property
  def extra_specs(self):
    return {
      "average": mesh.REPLICATED,
      "queue": mesh.BATCH,
      "position": mesh.REPLICATED,
      "memory": mesh.BATCH,
      "epochs": mesh.REPLICATED,
    }

  def loss(self, params, batch_stats, extra, batch, *, step, key):
    images = encoding.fold_views(batch.crops["large"])
    output = super().loss(params, batch_stats, extra, batch, step=step, key=key)
    _, z, _ = encoding.encode(self.encoder, params, batch_stats, images)
    average = extra["average"]
    _, target, _ = encoding.encode(
      self.encoder, average["params"], average["batch_stats"], images
    )
    target = jax.lax.stop_gradient(losses.normalize(target))
    pull = jnp.mean(jnp.sum((losses.normalize(z) - target) ** 2, axis=-1))
    means = encoding.device_means(
      {"pull": pull, "push": self._push(z, extra["queue"])}, self.axis_name
    )
    loss = output.loss + means["pull"] + 0.1 * means["push"]
    return output._replace(
      loss=loss,
      metrics=output.metrics | means | {"loss": loss},
      # The first view of every image.
      rows={"keys": target[::2], "ids": batch.ids},
    )

  def _push(self, z, queue):
    """Mean log of the similarities of all queries to the entire queue."""
    (queries,) = gather.gather([z], axis_name=self.axis_name)
    first = 0
    if self.axis_name is not None:
      first = jax.lax.axis_index(self.axis_name) * queue.shape[0]
    there = first + jnp.arange(queue.shape[0]) < self.queue_size
    similarities = losses.cosine_similarities(queries, queue)
    total = jnp.sum(jnp.where(there[None, :], jnp.exp(similarities), 0), axis=1)
    if self.axis_name is not None:
      total = jax.lax.psum(total, self.axis_name)
    return jnp.mean(jnp.log(total))

  def after_update(self, params, batch_stats, extra, rows, *, step, finite):
    average = tables.ema(
      extra["average"],
      {"params": params, "batch_stats": batch_stats},
      momentum=0.9,
      finite=finite,
    )
    queue, position = tables.enqueue(
      extra["queue"],
      extra["position"],
      rows["keys"],
      finite=finite,
      num_rows=self.queue_size,
    )
    memory = tables.write_rows(
      extra["memory"], rows["ids"], rows["keys"], finite=finite
    )
    return params, extra | {
      "average": average,
      "queue": queue,
      "position": position,
      "memory": memory,
    }

  def on_epoch_end(self, state, embed, *, step):
    assert (int(state.extra["epochs"]) == 0) == (step == 0)
    mean = jnp.asarray(embed().mean(), state.extra["queue"].dtype)
    # Any change that depends on all images.
    memory = state.extra["memory"] + mean
    epochs = state.extra["epochs"] + 1
    extra = state.extra | {"epochs": epochs, "memory": memory}
    return state.replace(extra=extra)

  def encoder_variables(self, state):
    return state.extra["average"]
