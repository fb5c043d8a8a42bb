"""A trained generator with its codec and sampler: conditions in, sound out."""

from collections.abc import Callable
import functools
from typing import Any, Self

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from v2a_jax.batch import Conditioning
from v2a_jax.codec import frozen, streaming
from v2a_jax.experiment import load
from v2a_jax.sampling.draw import Draw
from v2a_jax.sampling.windows import Windows
from v2a_jax.soundtrack.conditions import WindowEncoder

DEFAULT = "diffusion_tiny"  # the bundle that is used when none is named


class Synthesizer:
  """A trained generator with its codec, tokenizers and sampler.

  Attributes:
    experiment: settings and shapes of the model.
    sample_rate: sample rate of the generated sound in Hz.
    window_seconds: length in seconds of the clips it was trained on.
    encoder: makes the conditions of windows.
    loader_config: settings that turn a record into an example for the model.
  """

  def __init__(self, trained: load.Trained):
    """Takes a loaded model; reads its codec."""
    self.experiment = trained.experiment
    self.codec = frozen.load(self.experiment.run.codec)
    self.encoder = WindowEncoder(trained, self.codec.config.latent_rate)
    self.sample_rate = self.codec.config.sample_rate
    self.loader_config = self.encoder.loader_config
    self.window_seconds = self.loader_config.seconds
    self._graphdef, self._params = nnx.split(trained.model)
    self._source = dict(trained.source)

  @classmethod
  def load(cls, checkpoint=None, *, step: int | str | None = None) -> Self:
    """Loads a workdir of `v2a train`, a bundle, or a model by its name.

    Args:
      checkpoint: folder of either kind, the name of a bundled model, or that of
        a published one, such as `mmaudio:small_16k`.
      step: step of a workdir's checkpoint; "best" for that of the best
        validation result, None for the newest.

    Raises:
      BundleError, CheckpointError, MissingWeightsError, WrongWeightsError: it
        is missing, damaged or of another model.
    """
    return cls(load.load(checkpoint or DEFAULT, step=step))

  @property
  def see(self) -> Callable[[bytes], np.ndarray] | None:
    """Encodes a video's bytes; see `WindowEncoder.see`."""
    return self.encoder.see

  @property
  def size(self) -> dict[str, Any]:
    """Number of `parameters`, and their types, the `precision`."""
    leaves = [
      leaf
      for leaf in jax.tree.leaves(self._params)
      if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    return {
      "parameters": sum(leaf.size for leaf in leaves),
      "precision": ", ".join(sorted({str(leaf.dtype) for leaf in leaves})),
    }

  def describe(self) -> dict[str, Any]:
    """Returns where the weights are from and how they are used; JSON-able."""
    config = self.experiment.config
    return {
      "name": self.experiment.run.name,
      "checkpoint": self._source,
      "config": config,
      "sampler": config["sampler"],
    }

  def sample(self, cond: Conditioning, **settings) -> np.ndarray:
    """Generates one soundtrack per row of `cond`.

    Args:
      cond: conditions of windows, as `draw` takes them.
      **settings: arguments of `draw`, which has the latents alone.

    Returns:
      float32 [b samples channels] at `sample_rate`.

    Raises:
      ConfigError: a field is unknown, or its value is refused.
    """
    return self.decode(self.draw(cond, **settings))

  def decode(self, target) -> np.ndarray:
    """Decodes latents or codes to float32 [b samples channels].

    In pieces, so that the memory of the decoder does not grow with the clip.
    """
    return streaming.decode(self.codec.merge(), target)

  def draw(
    self,
    cond: Conditioning,
    *,
    seed=0,
    passage: int = 0,
    negative=None,
    windows=None,
    seconds=None,
    sampler=None,
    known=None,
    prefix=None,
    shares=None,
    like=None,
    begin: float = 0.0,
  ):
    """Generates latents or codes of one soundtrack per row of `cond`.

    Args:
      cond: conditions of b·windows.count windows, clip by clip.
      seed: int, row i gets seed + i; or ints [b].
      passage: number of the passage of a long clip, which has noise of its own.
      negative: (ids [.. l], mask [.. l]) of negative prompts, as many rows.
      windows: tiling of a clip by windows; None for one window each.
      seconds: length of each clip in seconds, [b]; None for as long as windows
        reach. A diffusion model does not see what comes after, as in training.
      sampler: other values for fields of the sampler, or another sampler.
      known: (sound float32 [b samples channels], bool [b windows.total]), a
        sound and which of its latents are kept.
      prefix: (latents or codes [b windows.total ...], mask [b windows.total] as
        in `Draw.known`), what a passage continues; it counts before `known`.
      shares: float [p windows.total], how much each of p sets of conditions
        says at each latent; `cond` and `negative` then have p times the rows,
        set by set. See `sampling.draw.Draw`.
      like: sound float32 [b samples channels] to begin from.
      begin: diffusion time in [0, 1) from which its latents are changed.

    Returns:
      [b windows.total ...] of the model's target.

    Raises:
      ConfigError: a field is unknown, or its value is refused.
    """
    rate = self.codec.config.latent_rate
    length = round(self.window_seconds * rate)
    windows = windows or Windows(length, length)
    sets = 1 if shares is None else len(shares)
    b = cond.presence.shape[0] // (windows.count * sets)
    seeds = np.asarray(seed) if np.ndim(seed) else seed + np.arange(b)
    keys = jax.vmap(jax.random.key)(seeds)
    if passage:
      keys = jax.vmap(lambda key: jax.random.fold_in(key, passage))(keys)
    times = (jnp.arange(length, dtype=jnp.float32) + 0.5) / rate
    if not callable(sampler):
      sampler = self.experiment.sampler_with(sampler)
    mask = None
    if seconds is not None:
      starts = np.arange(windows.total) / rate
      mask = starts < np.asarray(seconds)[:, None]
    run = self._compiled(sampler, windows, begin)
    draw = dict(keys=keys, times=times, negative=negative, mask=mask)
    draw |= dict(known=known, prefix=prefix, shares=shares, like=like)
    return run(self._params, self.codec.state, cond, draw)

  @functools.lru_cache(maxsize=32)  # noqa: B019 (a tracker lives long)
  def _compiled(self, sampler, windows, begin):
    """Returns the jitted way from conditions to latents or codes."""
    experiment = self.experiment

    @jax.jit
    def run(params, codec_state, cond, draw):
      draw = dict(draw)
      encode = functools.partial(experiment.representation.encode, codec_state)
      if draw["known"] is not None:
        sound, kept = draw["known"]
        draw = draw | {"known": (encode(sound), kept)}
      prefix = draw.pop("prefix")
      if prefix is not None:
        draw = draw | {"known": _over(prefix, draw["known"])}
      if draw["like"] is not None:
        draw = draw | {"like": encode(draw["like"])}
      model = nnx.merge(self._graphdef, params)
      settings = Draw(windows=windows, begin=begin, **draw)
      return sampler(model, experiment.objective, cond, settings)

    return run

  def reconstruct(self, audio) -> np.ndarray:
    """Encodes and decodes audio [b samples channels]: the codec's ceiling."""
    return np.asarray(self._reconstruct(self.codec.state, audio))

  @functools.cached_property
  def _reconstruct(self):
    representation = self.experiment.representation

    @jax.jit
    def run(state, audio):
      target = representation.encode(state, audio)
      latents = representation.latents(state, target)
      return self.codec.merge(state).decode(latents)[:, : audio.shape[1]]

    return run


def _over(first, second):
  """Returns what is known by the first pair of values and mask, or the second."""
  if second is None:
    return first
  mask = first[1]
  chosen = (mask > 0).reshape(*mask.shape, *[1] * (first[0].ndim - 2))
  return jnp.where(chosen, first[0], second[0]), jnp.maximum(mask, second[1])
