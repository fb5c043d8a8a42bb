"""Sounds of fixed validation clips as files, while a run trains.

<folder>/clip_0.wav   the sound
<folder>/clip_0.mp4   the same with the frames that the model saw
"""

import logging
import pathlib
import tempfile

import jax
import numpy as np

from v2a_jax import media
from v2a_jax.basics import files
from v2a_jax.basics.paths import PathLike, as_path, is_remote
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.experiment.samples import Sampler

_log = logging.getLogger(__name__)


class Samples:
  """Makes and writes them; see `training.run.Samples`."""

  def __init__(self, experiment: Experiment):
    """Takes the experiment; reads the clips when they are first needed."""
    self._experiment = experiment
    self._sampler = None

  def __call__(self, params, buffers, *, mesh, folder: PathLike) -> None:
    """Makes the sounds on all processes; process 0 writes them.

    What cannot be written is said, and costs the run nothing else.
    """
    if self._sampler is None:
      self._sampler = Sampler(self._experiment, mesh)
    sounds = self._sampler(params, buffers)
    if jax.process_index() == 0:
      try:
        self._write(sounds, as_path(folder))
      except (OSError, media.MediaError) as error:
        _log.warning("samples cannot be written: %s; training goes on", error)

  def _write(self, sounds: np.ndarray, folder) -> None:
    if is_remote(folder):
      with tempfile.TemporaryDirectory() as local:
        self._write(sounds, pathlib.Path(local))
        files.upload(local, folder)
      return
    folder.mkdir(parents=True, exist_ok=True)
    clips, rate = self._sampler.clips, self._sampler.sample_rate
    for i, sound in enumerate(sounds):
      sound = sound[: round(float(clips["duration"][i]) * rate)]
      sound = np.clip(np.nan_to_num(sound), -1, 1)
      media.write_wav(folder / f"clip_{i}.wav", sound, rate, bits=16)
      if "frames" not in clips:
        continue
      there = clips["frame_mask"][i]
      frames = clips["frames"][i][there]
      height, width = (2 * (size // 2) for size in frames.shape[1:3])
      media.encode_video(
        frames[:, :height, :width],
        clips["frame_times"][i][there],
        path=folder / f"clip_{i}.mp4",
        audio=sound,
        sample_rate=rate,
      )
