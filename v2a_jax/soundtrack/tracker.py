"""Generates soundtracks: a video and words in, ranked takes out.

  tracker = Soundtracker.load()                       # or a workdir, a bundle
  takes = tracker("clip.mp4", prompt="rain on tin", num_candidates=4, seed=0)
  takes.save("out/")

The clip is cut into windows as long as the model was trained on; all candidates
are generated in one batch, decoded by the codec, cut to the video's length to
the sample, and ranked. Candidate i has seed `seed + i` and its own noise.
"""

from collections.abc import Callable, Iterator
import dataclasses
import fractions
import functools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from data_pipelines import example as example_lib
from data_pipelines.tokenizer import with_times
from v2a_jax import media
from v2a_jax.basics.paths import local_path
from v2a_jax.basics.settings import SettingError
from v2a_jax.batch import Conditioning
from v2a_jax.codec import frozen, streaming
from v2a_jax.experiment import load
from v2a_jax.experiment.footage import Footage
from v2a_jax.hearing import unwanted
from v2a_jax.sampling import ranking
from v2a_jax.sampling.draw import Draw
from v2a_jax.sampling.windows import Windows
from v2a_jax.soundtrack import scoring
from v2a_jax.soundtrack.infill import Kept
from v2a_jax.soundtrack.request import Request
from v2a_jax.soundtrack.takes import Soundtrack, Soundtracks

DEFAULT = "diffusion_tiny"  # the bundle that is used when none is named
PROMPT_FADE = 0.1  # seconds, from one prompt to the next


class Soundtracker:
  """A trained generator with its codec, tokenizers and sampler.

  Attributes:
    experiment: settings and shapes of the model.
    sample_rate: sample rate of the generated sound in Hz.
    window_seconds: length in seconds of the clips it was trained on.
    loader_config: settings that turn a record into an example for the model.
  """

  def __init__(self, trained: load.Trained):
    """Takes a loaded model; reads its codec."""
    self.experiment = trained.experiment
    self.codec = frozen.load(self.experiment.run.codec)
    self.tokenizer = trained.tokenizers.get("tokenizer")
    self.prompt_tokenizer = trained.tokenizers.get(
      "prompt_tokenizer", self.tokenizer
    )
    # The model's tokenizers, wherever its training data is now, and frames.
    self.loader_config = dataclasses.replace(
      self.experiment.data,
      **trained.tokenizer_files,
      features=0,
      frames=True,
    )
    self.sample_rate = self.codec.config.sample_rate
    self.window_seconds = self.loader_config.seconds
    self._footage = None
    if self.experiment.conditioner.views:
      self._footage = Footage(
        trained.model.conditioner, seconds=self.window_seconds
      )
    self._graphdef, self._params = nnx.split(trained.model)
    self._source = dict(trained.source)

  @classmethod
  def load(
    cls, checkpoint=None, *, step: int | str | None = None
  ) -> "Soundtracker":
    """Loads a workdir of `v2a train`, a bundle, or a model by its name.

    Args:
      checkpoint: folder of either kind, the name of a bundled model, or that of
        a published one, such as `mmaudio:small_16k`.
      step: step of a workdir's checkpoint; "best" for that of the best validation
      result, None for the newest.

    Raises:
      BundleError, CheckpointError, MissingWeightsError, WrongWeightsError: it
        is missing, damaged or of another model.
    """
    return cls(load.load(checkpoint or DEFAULT, step=step))

  @property
  def see(self) -> Callable[[bytes], np.ndarray] | None:
    """Encodes a video's bytes to features of its frames, float32 [n f].

    None where the model encodes the frames of its loader.
    """
    if not self._footage:
      return None
    return functools.partial(
      self._footage.packed, **_confined(media.DEFAULT_LIMITS)
    )

  @property
  def speaks(self) -> bool:
    """Whether the model reads a transcript."""
    return self.experiment.conditioner.reads_transcript

  def describe(self) -> dict[str, Any]:
    """Returns where the weights are from and how they are used; JSON-able."""
    config = self.experiment.config
    return {
      "name": self.experiment.run.name,
      "checkpoint": self._source,
      "config": config,
      "sampler": config["sampler"],
    }

  def sample(
    self,
    cond: Conditioning,
    *,
    seed=0,
    negative=None,
    windows=None,
    seconds=None,
    sampler=None,
    known=None,
    shares=None,
    like=None,
    begin: float = 0.0,
  ) -> np.ndarray:
    """Generates one soundtrack per row of `cond`.

    Args:
      cond: conditions of b·windows.count windows, clip by clip.
      seed: int, row i gets seed + i; or ints [b].
      negative: (ids [.. l], mask [.. l]) of negative prompts, as many rows.
      windows: tiling of a clip by windows; None for one window each.
      seconds: length of each clip in seconds, [b]; None for as long as windows
        reach. A diffusion model does not see what comes after, as in training.
      sampler: other values for fields of the sampler, or another sampler.
      known: (sound float32 [b samples channels], bool [b windows.total]), a
        sound and which of its latents are kept.
      shares: float [p windows.total], how much each of p sets of conditions
        says at each latent; `cond` and `negative` then have p times the rows,
        set by set. See `sampling.draw.Draw`.
      like: sound float32 [b samples channels] to begin from.
      begin: diffusion time in [0, 1) from which its latents are changed.

    Returns:
      float32 [b samples channels] at `sample_rate`.

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
    times = (jnp.arange(length, dtype=jnp.float32) + 0.5) / rate
    if not callable(sampler):
      sampler = self.experiment.sampler_with(sampler)
    mask = None
    if seconds is not None:
      starts = np.arange(windows.total) / rate
      mask = starts < np.asarray(seconds)[:, None]
    run = self._compiled(sampler, windows, begin)
    draw = dict(keys=keys, times=times, negative=negative, mask=mask)
    draw |= dict(known=known, shares=shares, like=like)
    target = run(self._params, self.codec.state, cond, draw)
    # In pieces, so that the memory of the decoder does not grow with the clip.
    return streaming.decode(self.codec.merge(), target)

  @functools.lru_cache(maxsize=32)  # noqa: B019 (a tracker lives long)
  def _compiled(self, sampler, windows, begin):
    """Returns the jitted way from conditions to latents or codes."""
    experiment = self.experiment

    @jax.jit
    def run(params, codec_state, cond, draw):
      encode = functools.partial(experiment.representation.encode, codec_state)
      if draw["known"] is not None:
        sound, kept = draw["known"]
        draw = draw | {"known": (encode(sound), kept)}
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

  def __call__(
    self, video, *, limits: media.Limits = media.DEFAULT_LIMITS, **request
  ) -> Soundtracks:
    """Makes soundtracks for one video.

    Args:
      video: path of the video.
      limits: resource limits of reading it.
      **request: fields of a `Request`.

    Raises:
      MediaError: the file cannot be read or has no picture.
      ValueError: a value of the request is refused.
    """
    request = Request(**request)
    path, seconds, make = self._prepare(video, request, limits)
    taken, rejected = self._select(make, request)
    return Soundtracks(
      video=path,
      request=request,
      candidates=tuple(taken),
      model=self.describe(),
      seconds=seconds,
      rejected=tuple(rejected),
      limits=limits,
    )

  def stream(
    self, video, *, limits: media.Limits = media.DEFAULT_LIMITS, **request
  ) -> Iterator[Soundtracks]:
    """Makes soundtracks one after another and yields each when it is done.

    Each is alone in its `Soundtracks`, whose request gives it again by itself.
    All together take longer than the batch of a call.

    Args:
      video: path of the video.
      limits: resource limits of reading it.
      **request: fields of a `Request`.

    Raises:
      MediaError, ValueError: as a call.
    """
    request = Request(**request)
    path, seconds, make = self._prepare(video, request, limits)
    n = request.num_candidates
    for index in range(n):
      seeds = [request.seed + index + n * k for k in range(1 + request.retries)]
      tried = []
      for seed in seeds:
        tried += make(seed, 1)
        if not tried[-1].rejected:
          break
      best = min(
        tried, key=lambda take: (take.rejected, sum(take.heard.values()))
      )
      (score,) = scoring.combined([best.scores], request.rank_by[:1])
      yield Soundtracks(
        video=path,
        request=dataclasses.replace(
          request, num_candidates=1, seed=best.seed, retries=0
        ),
        candidates=(dataclasses.replace(best, score=score),),
        model=self.describe(),
        seconds=seconds,
        rejected=tuple(_row(take) for take in tried if take is not best),
        limits=limits,
      )

  def _prepare(self, video, request: Request, limits):
    """Reads a video.

    Returns:
      Its path, the seconds to score, and a function of (first seed, count) that
      makes so many takes.
    """
    path = local_path(video, "the video")
    self.check(request)
    seconds = media.limited(media.video_duration)(path, limits=limits)
    if request.duration is not None:
      seconds = min(seconds, fractions.Fraction(request.duration))
    picture = media.limited(media.read_video)(
      path,
      duration=float(seconds),
      max_fps=self.loader_config.fps,
      size=self.loader_config.frame_size,
      limits=limits,
    )
    rate = self.codec.config.latent_rate
    windows = Windows.cover(
      int(np.ceil(float(seconds) * rate)),
      length=round(self.window_seconds * rate),
    )
    maker = self._layered if request.layers else self._maker
    make = maker(path, picture, windows, seconds, request, limits)
    return path, seconds, make

  def check(self, request: Request) -> None:
    """Refuses what this model cannot do, before any work.

    Raises:
      SettingError: names what.
      MediaError: the sound `like` cannot be read.
      MissingWeightsError, WrongWeightsError: a network of a score is not there.
    """
    name = self.experiment.run.name
    if request.spoken and not self.speaks:
      raise SettingError(
        f"transcript={request.spoken!r}: {name} speaks no given words; describe"
        " speech in the prompt"
      )
    if request.like_strength is not None and not self.diffuses:
      raise SettingError(
        f"like_strength={request.like_strength}: {name} does not begin from a"
        " sound; a diffusion model does"
      )
    if request.like:
      read = media.limited(media.probe)
      if not read(request.like).has_audio:
        raise SettingError(f"like={request.like!r} has no sound")
    if not callable(request.sampler):
      self.experiment.sampler_with(request.sampler)
    scoring.prepare(self._scores(request))

  @property
  def diffuses(self) -> bool:
    """Whether it is a diffusion model."""
    return self.experiment.sampler.family == "diffusion"

  def _layered(self, path, picture, windows, seconds, request, limits):
    """Returns what `_maker` returns, for the sum of the request's layers."""
    makers = {
      kind: self._maker(
        path, picture, windows, seconds, request.layer(kind, prompt), limits
      )
      for kind, prompt in request.layers
    }
    like = None
    if request.like:
      like = Kept.read(
        request.like,
        (),
        latents=windows.total,
        codec=self.codec.config,
        limits=limits,
      ).sound
    names = self._scores(request)

    def make(seed: int, count: int) -> list[Soundtrack]:
      made = {kind: maker(seed, count) for kind, maker in makers.items()}
      takes = []
      for i in range(count):
        parts = {kind: row[i].samples for kind, row in made.items()}
        total = sum(parts.values())
        gain = 1 / max(float(np.abs(total).max(initial=0.0)), 1.0)
        take = self._take(total * gain, seed + i, picture, names, request, like)
        parts = {kind: part * gain for kind, part in parts.items()}
        takes.append(dataclasses.replace(take, layers=parts))
      return takes

    return make

  def _maker(self, path, picture, windows, seconds, request, limits):
    """Returns a function of (first seed, count) that makes so many takes."""
    texts, shares = self._prompts(request, windows)
    conds = [self._conditions(picture, windows, request, t) for t in texts]
    if self._footage:
      rate = self.codec.config.latent_rate
      starts = [start / rate for start in windows.starts]
      features = self._features(path, starts, limits)
      conds = [c.replace(frames=None, features=features) for c in conds]
    kept = like = None
    read = functools.partial(
      Kept.read, latents=windows.total, codec=self.codec.config, limits=limits
    )
    if request.audio:
      kept = read(
        request.audio, request.regenerate, audio_track=request.audio_track
      )
    if request.like:
      like = read(request.like, ())
    begun = {}
    if request.like_strength is not None:
      begun = {"begin": 1.0 - request.like_strength}
    names = self._scores(request)

    def make(seed: int, count: int) -> list[Soundtrack]:
      repeat = lambda x: np.tile(x, (count,) + (1,) * (x.ndim - 1))
      rows = [jax.tree.map(repeat, cond) for cond in conds]
      samples = self.sample(
        jax.tree.map(lambda *x: np.concatenate(x), *rows),
        seed=seed,
        windows=windows,
        seconds=np.full(count, float(seconds)),
        negative=self._negative(request, len(rows) * count * windows.count),
        sampler=request.sampler,
        known=jax.tree.map(repeat, kept.known) if kept else None,
        shares=shares,
        like=repeat(like.repeated) if begun else None,
        **begun,
      )
      if kept:
        samples = kept.put_back(samples)
      samples = samples[:, : round(seconds * self.sample_rate)]
      reference = like and like.sound
      return [
        self._take(samples[i], seed + i, picture, names, request, reference)
        for i in range(count)
      ]

    return make

  def _select(self, make, request: Request):
    """Makes candidates, and others where something unwanted is heard.

    Returns:
      (candidates, the best first and rejected ones last; rows of the sidecar
      about those that are not among them).
    """
    wanted, seed = request.num_candidates, request.seed
    made, count = [], wanted
    for _ in range(1 + request.retries):
      made += make(seed, count)
      seed += count
      missing = wanted - sum(not take.rejected for take in made)
      if missing <= 0:
        break
      # Few sizes, because each is compiled.
      count = min(wanted, 1 << (missing - 1).bit_length())
    totals = scoring.combined([take.scores for take in made], request.rank_by)
    made = [
      dataclasses.replace(take, score=total)
      for take, total in zip(made, totals)
    ]
    clean = [take for take in made if not take.rejected][:wanted]
    spare = sorted(
      (take for take in made if take.rejected), key=lambda take: -take.score
    )
    best = sorted(clean, key=lambda take: -take.score)
    taken = best + spare[: wanted - len(best)]
    seeds = {take.seed for take in taken}
    return taken, [_row(take) for take in made if take.seed not in seeds]

  def _scores(self, request: Request) -> tuple[str, ...]:
    """Returns the names of the scores that a request needs."""
    unwanted = [f"no_{name}" for name in request.unwanted if request.retries]
    return tuple(dict.fromkeys([*request.rank_by, *unwanted]))

  def _take(self, samples, seed: int, picture, names, request, like):
    samples = np.clip(samples, -1.0, 1.0)
    rate = self.sample_rate
    motion = ranking.motion_onset(samples, rate, picture.frames, picture.times)
    heard = {}
    if request.retries:
      heard = {
        kind: unwanted.amount(kind, samples, rate) for kind in request.unwanted
      }
    found = scoring.scores(samples, rate, names, motion=motion, like=like)
    return Soundtrack(
      samples=samples,
      sample_rate=rate,
      seed=seed,
      score=motion,
      scores=found,
      heard=heard,
      rejected=any(heard[kind] >= unwanted.KINDS[kind].limit for kind in heard),
    )

  def _prompts(self, request: Request, windows: Windows):
    """Lays prompts out over time.

    Returns:
      (prompts of each set of conditions, one for each window; shares float32
      [sets windows.total] of the sets at each latent, None for one set).
    """
    rate = self.codec.config.latent_rate
    texts = [request.prompt, *(text for _, _, text in request.prompts)]
    times = (np.arange(windows.total) + 0.5) / rate
    owner = np.zeros(windows.total, int)
    for index, (start, end, _) in enumerate(request.prompts, start=1):
      owner[(start <= times) & (times < end)] = index
    used = sorted(set(owner.tolist()))
    if not self.diffuses or len(used) == 1:
      # Each window by the prompt of most of its latents.
      most = [
        np.bincount(owner[begin : begin + windows.length]).argmax()
        for begin in windows.starts
      ]
      return [[texts[index] for index in most]], None
    shares = np.stack([owner == index for index in used]).astype(np.float32)
    width = max(round(PROMPT_FADE * rate), 1)
    shares = ndimage.uniform_filter1d(shares, width, axis=1, mode="nearest")
    return [[texts[index]] * windows.count for index in used], shares

  def _conditions(self, picture, windows, request, prompts) -> Conditioning:
    """Makes the conditions of every window, on each window's own clock.

    `prompts` has one text for each window.
    """
    window = self.loader_config.window
    whole = example_lib.Media(
      0.0,
      picture.frames,
      picture.times,
      np.zeros((0, window.channels), np.float32),
    )
    rate = self.codec.config.latent_rate
    words = request.words or [
      {"word": word} for word in request.transcript.split()
    ]
    words = with_times(words, windows.total / rate)
    length = window.transcript_length
    rows = []
    for start, text in zip(windows.starts, prompts, strict=True):
      begin = start / rate
      prompt, prompt_mask = self.prompt_tokenizer.encode(
        text, window.prompt_length
      )
      if self.speaks:
        spoken = self.tokenizer.encode_words(
          example_lib.words_inside(words, begin, window.seconds),
          length,
          window.seconds,
        )
      else:
        blank = example_lib.blank_example(window, index=0)
        spoken = {name: blank[name] for name in example_lib.SPOKEN}
      rows.append(
        Conditioning(
          **example_lib.cut_frames(whole, window, begin),
          prompt=prompt,
          prompt_mask=prompt_mask,
          **spoken,
          transcript_timed=np.bool_(bool(request.words)),
          presence=request.presence,
        )
      )
    return jax.tree.map(lambda *x: np.stack(x), *rows)

  def _features(self, path, starts, limits):
    """Encodes the windows from `starts` seconds on by the model's towers."""
    windows = [
      self._footage.features(path, start=start, **_confined(limits))
      for start in starts
    ]
    return jax.tree.map(lambda *x: np.stack(x), *windows)

  def _negative(self, request, rows: int):
    """Encodes the negative prompt for so many rows; None without one."""
    if not request.negative_prompt:
      return None
    encoded = self.prompt_tokenizer.encode(
      request.negative_prompt, self.loader_config.window.prompt_length
    )
    return tuple(np.tile(x, (rows, 1)) for x in encoded)


def _row(take: Soundtrack) -> dict[str, Any]:
  """Returns what the sidecar says of a take that is not delivered."""
  return {
    "seed": take.seed,
    "heard": dict(take.heard),
    "rejected": take.rejected,
  }


def _confined(limits: media.Limits) -> dict[str, Callable]:
  """Returns the readers of footage that run in the confined child."""
  part = functools.partial
  return {
    "read": part(media.limited(media.read_video), limits=limits),
    "probe": part(media.probe_limited, limits=limits),
  }
