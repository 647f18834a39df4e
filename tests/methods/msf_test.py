"""MSF: a trajectory of the public code, its bank, what is refused."""

import jax
import pytest

from paws_jax import config as config_lib
from paws_jax import errors
from tests import mean_shift_golden
from tests import ssl_trajectory

pytestmark = pytest.mark.unoptimized


@ssl_trajectory.each_dtype
def test_five_steps_equal_those_of_the_reference(x64, monkeypatch):
  with jax.enable_x64(x64):
    run = mean_shift_golden.Trajectory(
      monkeypatch, "trajectory_msf", x64, method="msf", fields={}
    )
    run.start()
    for step in range(5):
      run.step(step)
    run.assert_bank()


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"bank_size": 100}, r"method\.bank_size is 100 but train\.batch_size"),
    ({"bank_size": 512, "k": 513}, r"method\.k is 513 but method\.bank_size"),
    ({"k": 0}, r"method\.k is 0"),
    ({"momentum": 1.5}, r"method\.momentum is 1\.5"),
  ],
)
def test_banks_that_are_too_small_are_refused(fields, message):
  config = config_lib.base(method="msf")
  config.train.batch_size = 128
  config.views.small.count = 0
  config.method.update(fields)
  with pytest.raises(errors.InputError, match=message):
    config_lib.resolve(config)


def test_small_crops_are_refused():
  config = config_lib.base(method="msf")
  method = mean_shift_golden.ssl_trajectory.make("msf", {}, None)
  with pytest.raises(errors.InputError, match=r"views\.small\.count is"):
    method.views(config_lib.build_views(config.views))
