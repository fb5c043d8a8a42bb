"""Generates soundtracks: a video and words in, ranked takes out.

  tracker = Soundtracker.load()                       # or a workdir, a bundle
  takes = tracker("clip.mp4", prompt="rain on tin", num_candidates=4, seed=0)
  takes.save("out/")

The clip is cut into windows as long as the model was trained on, long ones into
passages of windows, one after another; all candidates are generated in one
batch, decoded by the codec, cut to the video's length to the sample, and ranked.
Candidate i has seed `seed + i` and its own noise.
"""

from collections.abc import Callable, Iterator
import dataclasses
from fractions import Fraction
import functools
import pathlib
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from v2a_jax import media
from v2a_jax.basics.paths import local_path
from v2a_jax.basics.settings import SettingError
from v2a_jax.batch import Conditioning
from v2a_jax.codec import frozen, streaming
from v2a_jax.experiment import load
from v2a_jax.sampling.draw import Draw
from v2a_jax.sampling.windows import Windows
from v2a_jax.soundtrack import passages, scoring, selection
from v2a_jax.soundtrack.conditions import WindowEncoder
from v2a_jax.soundtrack.infill import Kept
from v2a_jax.soundtrack.passages import Passage
from v2a_jax.soundtrack.reel import Reel
from v2a_jax.soundtrack.request import Request
from v2a_jax.soundtrack.takes import Soundtrack, Soundtracks

DEFAULT = "diffusion_tiny"  # the bundle that is used when none is named

# (first seed, count) → sounds float32 [count t channels], and by kind the parts
# that sum up to them.
_Sounds = Callable[[int, int], tuple[np.ndarray, dict[str, np.ndarray]]]


@dataclasses.dataclass(frozen=True)
class _Scene:
  """A video as the model sees it.

  Attributes:
    path: its file.
    reel: its frames.
    seconds: how much of it is scored.
    passages: what is generated at a time, in order.
    latents: number of latents that all passages cover.
    cuts: seconds at which shots begin, but for the first.
    limits: resource limits of reading files.
  """

  path: pathlib.Path
  reel: Reel
  seconds: Fraction
  passages: tuple[Passage, ...]
  latents: int
  cuts: tuple[float, ...]
  limits: media.Limits


class Soundtracker:
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
    """Encodes a video's bytes; see `WindowEncoder.see`."""
    return self.encoder.see

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

    The arguments are those of `draw`, which has the latents alone.

    Returns:
      float32 [b samples channels] at `sample_rate`.

    Raises:
      ConfigError: a field is unknown, or its value is refused.
    """
    target = self.draw(
      cond,
      seed=seed,
      negative=negative,
      windows=windows,
      seconds=seconds,
      sampler=sampler,
      known=known,
      shares=shares,
      like=like,
      begin=begin,
    )
    return self.decode(target)

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
      prefix: (latents or codes [b windows.total ...], bool [b windows.total]),
        what a passage continues; it counts before `known`.
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
    scene, make = self._prepare(video, request, limits)
    taken, rejected = selection.select(make, request)
    return self._soundtracks(scene, request, taken, rejected)

  def stream(
    self, video, *, limits: media.Limits = media.DEFAULT_LIMITS, **request
  ) -> Iterator[Soundtracks]:
    """Makes soundtracks one after another and yields each when it is done.

    Each is alone in its `Soundtracks`, whose request gives it again by itself;
    its score is the first of `rank_by`, because there is no rank among one.
    On a CPU that costs less than the batch of a call, which is for accelerators.

    Args:
      video: path of the video.
      limits: resource limits of reading it.
      **request: fields of a `Request`.

    Raises:
      MediaError, ValueError: as a call.
    """
    request = Request(**request)
    scene, make = self._prepare(video, request, limits)
    for take, rejected in selection.one_by_one(make, request):
      alone = request.alone(take.seed)
      yield self._soundtracks(scene, alone, [take], rejected)

  def _soundtracks(self, scene, request, taken, rejected) -> Soundtracks:
    return Soundtracks(
      video=scene.path,
      request=request,
      candidates=tuple(taken),
      model=self.describe(),
      seconds=scene.seconds,
      rejected=tuple(rejected),
      limits=scene.limits,
      cuts=scene.cuts,
    )

  def _prepare(
    self, video, request: Request, limits
  ) -> tuple[_Scene, selection.Make]:
    """Reads a video; returns it, and what makes takes for it."""
    path = local_path(video, "the video")
    self.check(request)
    seconds = media.limited(media.video_duration)(path, limits=limits)
    if request.duration is not None:
      seconds = min(seconds, Fraction(request.duration))
    reel = Reel(
      path,
      float(seconds),
      fps=self.loader_config.fps,
      size=self.loader_config.frame_size,
      limits=limits,
    )
    scene = self._scene(path, reel, seconds, request, limits)
    like = self._read(request.like, scene) if request.like else None
    if request.layers:
      sounds = self._layered(scene, request)
    else:
      sounds = self._sounds(scene, request, like)

    def make(seed: int, count: int) -> list[Soundtrack]:
      samples, layers = sounds(seed, count)
      takes = []
      for i in range(count):
        take = selection.judged(
          samples[i],
          self.sample_rate,
          seed + i,
          motion=reel.motion,
          request=request,
          like=like and like.sound,
        )
        parts = {kind: part[i] for kind, part in layers.items()}
        takes.append(dataclasses.replace(take, layers=parts))
      return takes

    return scene, make

  def _scene(self, path, reel: Reel, seconds, request, limits) -> _Scene:
    """Divides a video into passages."""
    rate = self.codec.config.latent_rate
    cuts = tuple(reel.cuts) if request.shots else ()
    parts = tuple(
      passages.plan(
        int(np.ceil(float(seconds) * rate)),
        length=round(self.window_seconds * rate),
        cuts=[round(cut * rate) for cut in cuts],
      )
    )
    latents = parts[-1].begin + parts[-1].windows.total
    return _Scene(path, reel, seconds, parts, latents, cuts, limits)

  def check(self, request: Request) -> None:
    """Refuses what this model cannot do, before any work.

    Raises:
      SettingError: names what.
      MediaError: the sound `like` cannot be read.
      MissingWeightsError, WrongWeightsError: a network of a score is not there.
    """
    name = self.experiment.run.name
    if request.spoken and not self.encoder.speaks:
      raise SettingError(
        f"transcript={request.spoken!r}: {name} speaks no given words; describe"
        " speech in the prompt"
      )
    if request.like_strength is not None and not self.encoder.diffuses:
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
    scoring.prepare(selection.scores_of(request))

  def _layered(self, scene: _Scene, request: Request) -> _Sounds:
    """Returns what makes sums of the request's layers."""
    parts = {
      kind: self._sounds(scene, request.layer(kind, prompt))
      for kind, prompt in request.layers
    }

    def make(seed: int, count: int):
      layers = {kind: part(seed, count)[0] for kind, part in parts.items()}
      total = sum(layers.values())
      peaks = np.abs(total).max(axis=(1, 2), keepdims=True, initial=1.0)
      layers = {kind: layer / peaks for kind, layer in layers.items()}
      return total / peaks, layers

    return make

  def _sounds(
    self, scene: _Scene, request: Request, like: Kept | None = None
  ) -> _Sounds:
    """Returns what makes sounds at once; `like` may be begun from."""
    kept = None
    if request.audio:
      kept = self._read(
        request.audio,
        scene,
        regenerate=request.regenerate,
        audio_track=request.audio_track,
      )
    # One passage's conditions serve all takes; of several, each is made anew.
    conditions = functools.lru_cache(maxsize=1)(
      functools.partial(self._conditions, scene, request)
    )

    def make(seed: int, count: int):
      parts, made = [], None
      for number, passage in enumerate(scene.passages):
        prefix = _prefix(made, passage) if passage.prefix else None
        made = self._pass(
          scene, request, number, conditions(number), seed, count,
          kept=kept, like=like, prefix=prefix,
        )  # fmt: skip
        if number < len(scene.passages) - 1:
          made = made[:, : passage.end - passage.begin]
        parts.append(made[:, passage.prefix :])
      samples = self.decode(np.concatenate(parts, axis=1))
      if kept:
        samples = kept.put_back(samples)
      return samples[:, : round(scene.seconds * self.sample_rate)], {}

    return make

  def _conditions(self, scene: _Scene, request: Request, number: int):
    """Makes the conditions of a passage; see `WindowEncoder.sets`."""
    rate, passage = self.codec.config.latent_rate, scene.passages[number]
    # Within its shot: what is before or after a cut is not seen.
    edges = [0.0, *scene.cuts, float("inf")]
    shot = sum(round(cut * rate) <= passage.begin for cut in scene.cuts)
    begin, end = passage.begin, passage.begin + passage.windows.total
    return self.encoder.sets(
      scene.path,
      scene.reel.frames(
        begin / rate if passage.prefix else edges[shot],
        min(end / rate, edges[shot + 1]),
      ),
      passage.windows,
      request,
      scene.limits,
      begin=passage.begin,
      total=scene.latents,
    )

  def _pass(
    self, scene, request, number, conditions, seed, count, *, kept, like, prefix
  ) -> np.ndarray:
    """Generates a passage of `count` takes: latents or codes [count t ...]."""
    rate, passage = self.codec.config.latent_rate, scene.passages[number]
    (conds, shares), windows = conditions, passage.windows
    span = passage.begin, windows.total
    repeat = lambda x: np.tile(x, (count,) + (1,) * (x.ndim - 1))
    rows = [jax.tree.map(repeat, cond) for cond in conds]
    begun = {}
    if request.like_strength is not None:
      begun = {
        "like": repeat(like.repeated(*span)),
        "begin": 1.0 - request.like_strength,
      }
    end = float(scene.seconds)
    if number < len(scene.passages) - 1:
      end = passage.end / rate
    return np.asarray(
      self.draw(
        jax.tree.map(lambda *x: np.concatenate(x), *rows),
        seed=seed,
        passage=number,
        windows=windows,
        seconds=np.full(count, end - passage.begin / rate),
        negative=self.encoder.negative(
          request, len(rows) * count * windows.count
        ),
        sampler=request.sampler,
        known=jax.tree.map(repeat, kept.known(*span)) if kept else None,
        prefix=prefix,
        shares=shares,
        **begun,
      )
    )

  def _read(self, file: str, scene: _Scene, *, regenerate=(), **how) -> Kept:
    """Reads a sound on the clock of a scene."""
    return Kept.read(
      file,
      regenerate,
      latents=scene.latents,
      codec=self.codec.config,
      limits=scene.limits,
      **how,
    )


def _over(first, second):
  """Returns what is known by the first pair of values and mask, or the second."""
  if second is None:
    return first
  mask = first[1]
  chosen = mask.reshape(*mask.shape, *[1] * (first[0].ndim - 2))
  return jnp.where(chosen, first[0], second[0]), mask | second[1]


def _prefix(before: np.ndarray, passage: Passage):
  """Returns what a passage continues, and where that is; see `draw`.

  `before` is what the passage before it added and continued, [b t ...].
  """
  count, total = passage.prefix, passage.windows.total
  pad = [(0, 0), (0, total - count)] + [(0, 0)] * (before.ndim - 2)
  mask = np.arange(total) < count
  return (
    np.pad(before[:, -count:], pad),
    np.broadcast_to(mask, (len(before), total)),
  )
