"""The pipeline that users call: a video and words in, soundtracks out.

  tracker = Soundtracker.load()                       # or a workdir, a bundle
  takes = tracker("clip.mp4", prompt="rain on tin", num_candidates=4, seed=0)
  takes.save("out/")

The clip is cut into windows as long as the model was trained on; all candidates
are generated in one batch, decoded by the codec, cut to the video's length to
the sample, and ranked. Candidate i has seed `seed + i` and its own noise.
"""

import dataclasses
import fractions
import functools
import pathlib
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines import example as example_lib
from v2a_jax import media
from v2a_jax.batch import Conditioning
from v2a_jax.codec import frozen as frozen_codec
from v2a_jax.codec import streaming
from v2a_jax.experiment import build
from v2a_jax.experiment import load as trained
from v2a_jax.sampling import ranking
from v2a_jax.sampling.windows import Windows
from v2a_jax.soundtrack.infill import Kept
from v2a_jax.soundtrack.request import Request
from v2a_jax.weights import bundle

DEFAULT = "diffusion_tiny"  # the bundle that is used when none is named


@dataclasses.dataclass(frozen=True, kw_only=True)
class Soundtrack:
  """One candidate.

  Attributes:
    samples: float32 [t channels] in [-1, 1], as long as the video.
    sample_rate: hertz.
    seed: gives this candidate again.
    score: `sampling.ranking` score; more is better.
  """

  samples: np.ndarray
  sample_rate: int
  seed: int
  score: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Soundtracks:
  """All candidates for one video, the best first.

  Attributes:
    video: path of the picture.
    request: what was asked.
    candidates: ranked by `score_name`.
    score_name: which score ranked them.
    model: description of the model, see `Soundtracker.describe`.
  """

  video: pathlib.Path
  request: Request
  candidates: tuple[Soundtrack, ...]
  score_name: str
  model: dict[str, Any]

  @property
  def best(self) -> Soundtrack:
    return self.candidates[0]

  def save(self, directory, **options):
    """Watermarks, muxes and writes everything; see `delivery.deliver`."""
    from v2a_jax.soundtrack import takes as delivery

    return delivery.deliver(self, pathlib.Path(directory), **options)


class Soundtracker:
  """A trained generator with its codec, tokenizers and sampler.

  Attributes:
    sample_rate: hertz of the sound it makes.
    window_seconds: what the model was trained on.
    loader_config: how a record becomes an example for this model.
  """

  def __init__(self, found: trained.Trained):
    self.config = config = found.config
    self.codec = frozen_codec.load(config.codec)
    self.objective = build.make_objective(config)
    self.tokenizer = found.tokenizers["tokenizer"]
    self.prompt_tokenizer = found.tokenizers.get(
      "prompt_tokenizer", self.tokenizer
    )
    # Of the model, wherever its training data is now, and with frames.
    self.loader_config = build.loader_config(
      config,
      self.codec.config,
      **bundle.tokenizers(found.folder),
      features=0,
      frames=True,
    )
    self.sample_rate = self.codec.config.sample_rate
    self.window_seconds = self.loader_config.seconds
    self._graphdef, self._params = nnx.split(found.model)
    self._source = dict(found.source)

  @classmethod
  def load(cls, checkpoint=None, *, step: int | None = None) -> "Soundtracker":
    """Loads a workdir of `v2a train`, a bundle, or the bundled model.

    Args:
      checkpoint: folder of either kind, or the name of a bundled model.
      step: of a workdir's checkpoints; None for the newest.

    Raises:
      BundleError, CheckpointError: it is missing, damaged or of another model.
    """
    return cls(trained.load(checkpoint or DEFAULT, step=step))

  def describe(self) -> dict[str, Any]:
    """Where the weights are from and how they are used; JSON-able."""
    return {
      "name": self.config.name,
      "checkpoint": self._source,
      "config": self.config.to_dict(),
      "sampler": dict(self.config.sampler.to_dict()),
    }

  def sample(
    self,
    cond: Conditioning,
    *,
    seed=0,
    negative=None,
    windows=None,
    sampler=None,
    known=None,
  ) -> np.ndarray:
    """Generates one soundtrack per row of `cond`.

    Args:
      cond: conditions of b·windows.count windows, clip by clip.
      seed: int, row i gets seed + i; or ints [b].
      negative: (ids [.. l], mask [.. l]) of negative prompts, as many rows.
      windows: how windows tile a clip; None for one window each.
      sampler: overrides of the sampler's fields, or another sampler.
      known: (sound float32 [b samples channels], bool [b windows.total]),
        which latents of that sound are kept.

    Returns:
      float32 [b samples channels] at `sample_rate`.

    Raises:
      ConfigError: an override names no field, or its value is refused.
    """
    rate = self.codec.config.latent_rate
    length = round(self.window_seconds * rate)
    windows = windows or Windows(length, length)
    b = cond.presence.shape[0] // windows.count
    seeds = np.asarray(seed) if np.ndim(seed) else seed + np.arange(b)
    keys = jax.vmap(jax.random.key)(seeds)
    times = (jnp.arange(length, dtype=jnp.float32) + 0.5) / rate
    if not callable(sampler):
      sampler = build.make_sampler(self.config, sampler)
    run = self._compiled(sampler, windows)
    made = run(
      self._params, self.codec.state, cond, keys, times, negative, known
    )
    # In pieces, so that the memory of the decoder does not grow with the clip.
    return streaming.decode(self.codec.merge(), made)

  @property
  def _codes(self) -> tuple[bool, int | None]:
    """Whether the model writes codes, and of how many codebooks."""
    return (
      self.config.data.target == "codes",
      self.config.model.get("num_codebooks"),
    )

  @functools.lru_cache(maxsize=32)  # noqa: B019 (a tracker lives long)
  def _compiled(self, sampler, windows):
    """The jitted way from conditions to latents or codes."""
    as_codes, count = self._codes

    @jax.jit
    def run(params, codec_state, cond, keys, times, negative, known):
      model = nnx.merge(self._graphdef, params)
      codec = self.codec.merge(codec_state)
      if known is not None:
        given = codec.encode(known[0])
        known = (
          codec.quantize(given, count) if as_codes else given,
          known[1],
        )
      return sampler(
        model,
        self.objective,
        cond,
        keys=keys,
        times=times,
        windows=windows,
        negative=negative,
        known=known,
      )

    return run

  def reconstruct(self, audio) -> np.ndarray:
    """The codec's own ceiling: [b samples channels] there and back."""
    return np.asarray(self._reconstruct(self.codec.state, audio))

  @functools.cached_property
  def _reconstruct(self):
    as_codes, count = self._codes

    @jax.jit
    def run(state, audio):
      codec = self.codec.merge(state)
      latents = codec.encode(audio)
      if as_codes:
        latents = codec.dequantize(codec.quantize(latents, count))
      return codec.decode(latents)[:, : audio.shape[1]]

    return run

  def __call__(self, video, **request) -> Soundtracks:
    """Makes soundtracks for one video; arguments as in `Request`.

    Raises:
      MediaError: the file cannot be read or has no picture.
      ValueError: a value of the request is refused.
    """
    path, request = pathlib.Path(video), Request(**request)
    seconds = media.run_limited(media.video_duration, path)
    if request.duration is not None:
      seconds = min(seconds, fractions.Fraction(request.duration))
    look = functools.partial(
      media.read_video,
      duration=float(seconds),
      max_fps=self.loader_config.fps,
      size=self.loader_config.frame_size,
    )
    picture = media.run_limited(look, path)
    rate = self.codec.config.latent_rate
    windows = Windows.cover(
      int(np.ceil(float(seconds) * rate)),
      length=round(self.window_seconds * rate),
    )
    n = request.num_candidates
    cond = self._conditions(picture, windows, request)
    repeat = lambda x: np.tile(x, (n,) + (1,) * (x.ndim - 1))
    kept = request.audio and Kept.read(
      request.audio,
      request.regenerate,
      latents=windows.total,
      codec=self.codec.config,
    )
    samples = self.sample(
      jax.tree.map(repeat, cond),
      seed=request.seed,
      windows=windows,
      negative=self._negative(request, n * windows.count),
      sampler=request.sampler,
      known=jax.tree.map(repeat, kept.known) if kept else None,
    )
    total = round(seconds * self.sample_rate)
    if kept:
      samples = kept.put_back(samples)
    takes = [
      self._take(samples[i, :total], request.seed + i, picture)
      for i in range(n)
    ]
    takes.sort(key=lambda take: -take.score)
    return Soundtracks(
      video=path,
      request=request,
      candidates=tuple(takes),
      score_name=ranking.NAME,
      model=self.describe(),
    )

  def _take(self, samples, seed, video) -> Soundtrack:
    samples = np.clip(samples, -1.0, 1.0)
    score = ranking.motion_onset(
      samples, self.sample_rate, video.frames, video.times
    )
    return Soundtrack(
      samples=samples, sample_rate=self.sample_rate, seed=seed, score=score
    )

  def _conditions(self, video, windows, request) -> Conditioning:
    """Conditions of every window, on each window's own clock."""
    window = self.loader_config.window
    whole = example_lib.Media(
      0.0, video.frames, video.times, np.zeros((0, window.channels), np.float32)
    )
    rate = self.codec.config.latent_rate
    prompt, prompt_mask = self.prompt_tokenizer.encode(
      request.prompt, window.prompt_length
    )
    words = request.transcript.split()
    total = windows.total / rate
    rows = []
    for start in windows.starts:
      begin = start / rate
      inside = [
        {"word": word, "start": (i + 0.5) / len(words) * total - begin}
        for i, word in enumerate(words)
      ]
      inside = [w for w in inside if 0 <= w["start"] < window.seconds]
      ids, times, mask = self.tokenizer.encode_words(
        inside, window.transcript_length, window.seconds
      )
      rows.append(
        Conditioning(
          **example_lib.cut_frames(whole, window, begin),
          prompt=prompt,
          prompt_mask=prompt_mask,
          transcript=ids,
          transcript_times=times,
          transcript_mask=mask,
          transcript_timed=np.bool_(False),
          presence=request.presence,
        )
      )
    return jax.tree.map(lambda *x: np.stack(x), *rows)

  def _negative(self, request, rows: int):
    if not request.negative_prompt:
      return None
    encoded = self.prompt_tokenizer.encode(
      request.negative_prompt, self.loader_config.window.prompt_length
    )
    return tuple(np.tile(x, (rows, 1)) for x in encoded)
