"""Expected time of training, from steps that are timed."""

import types

from paws_jax.doctor import duration
from paws_jax.doctor import findings
from paws_jax.training import step_times


def reported(monkeypatch, capsys, times, *, steps, epochs=10):
  """What the doctor prints about times of a step and an evaluation."""
  monkeypatch.setattr(step_times, "measure", lambda _: times)
  built = types.SimpleNamespace(
    train=types.SimpleNamespace(epochs=epochs),
    eval=types.SimpleNamespace(every_steps=100 if times.evaluation else 0),
    total_steps=steps,
    images_per_step=64,
  )
  duration.training_time(findings.Report(), built)
  return capsys.readouterr().out


def test_the_report_adds_steps_and_evaluations(monkeypatch, capsys):
  times = step_times.Times(60.0, 1.0, 0.2, 6.0)
  text = reported(monkeypatch, capsys, times, steps=7000)
  assert "takes 60 s; a step takes 1 s (64 images a second)" in text
  assert "in 20% of that the devices wait for images" in text
  # 60 s, 7,000 s and 70 times 6 s.
  assert (
    "about 2.08 hours: 7,000 steps and 70 evaluations of 6 s, on this" in text
  )


def test_without_waiting_or_evaluations_neither_is_reported(
  monkeypatch, capsys
):
  times = step_times.Times(60.0, 0.8, 0.0)
  text = reported(monkeypatch, capsys, times, steps=50)
  assert "wait for images" not in text
  assert "about 100 s: 50 steps, on this" in text


def test_the_work_between_epochs_counts(monkeypatch, capsys):
  times = step_times.Times(60.0, 1.0, 0.0, epoch_end=4.0)
  text = reported(monkeypatch, capsys, times, steps=10, epochs=7)
  # 60 s, 10 s and 7 times 4 s.
  assert "about 98 s: 10 steps, on this" in text


def test_the_length_of_a_run_of_minutes_is_not_guessed(monkeypatch, capsys):
  times = step_times.Times(60.0, 0.8, 0.0)
  text = reported(monkeypatch, capsys, times, steps=50, epochs=0)
  assert "a step takes 800 ms" in text
  assert "training takes" not in text
