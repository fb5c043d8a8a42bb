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

import jax
import numpy as np

from v2a_jax import media
from v2a_jax.basics import scratch
from v2a_jax.basics.paths import local_path
from v2a_jax.basics.settings import SettingError
from v2a_jax.soundtrack import passages, scoring, selection
from v2a_jax.soundtrack.infill import Kept
from v2a_jax.soundtrack.judging import Watched
from v2a_jax.soundtrack.passages import Passage
from v2a_jax.soundtrack.reel import Reel
from v2a_jax.soundtrack.request import Request
from v2a_jax.soundtrack.synthesizer import Synthesizer
from v2a_jax.soundtrack.takes import Soundtrack, Soundtracks

# Called with the share of the sounds at hand that is made, above 0 to 1, after
# each passage. What it raises ends the work there.
OnPassage = Callable[[float], None]
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


class Soundtracker(Synthesizer):
  """Makes soundtracks for videos; see `Synthesizer` for its attributes."""

  def __call__(
    self,
    video,
    *,
    limits: media.Limits = media.DEFAULT_LIMITS,
    on_passage: OnPassage = lambda share: None,
    **request,
  ) -> Soundtracks:
    """Makes soundtracks for one video.

    Args:
      video: path of the video.
      limits: resource limits of reading it.
      on_passage: called as each passage of the takes is made; see `OnPassage`.
      **request: fields of a `Request`.

    Raises:
      MediaError: the file cannot be read or has no picture.
      ValueError: a value of the request is refused.
    """
    request = Request(**request)
    scene, make = self._prepare(video, request, limits, on_passage)
    taken, rejected = selection.select(make, request)
    return self._soundtracks(scene, request, taken, rejected)

  def stream(
    self,
    video,
    *,
    limits: media.Limits = media.DEFAULT_LIMITS,
    first: int = 0,
    on_passage: OnPassage = lambda share: None,
    **request,
  ) -> Iterator[Soundtracks]:
    """Makes soundtracks one after another and yields each when it is done.

    Each is alone in its `Soundtracks`, whose request gives it again by itself;
    its score is the first of `rank_by`, because there is no rank among one.
    On a CPU that costs less than the batch of a call, which is for accelerators.

    Args:
      video: path of the video.
      limits: resource limits of reading it.
      first: number of the candidate to begin with, from 0, where those before
        it were made earlier.
      on_passage: called as each passage of a take is made; see `OnPassage`. A
        take that is rejected is begun again, and counted again.
      **request: fields of a `Request`.

    Raises:
      MediaError, ValueError: as a call.
    """
    request = Request(**request)
    scene, make = self._prepare(video, request, limits, on_passage)
    for take, rejected in selection.one_by_one(make, request, first):
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
    self, video, request: Request, limits, on_passage: OnPassage
  ) -> tuple[_Scene, selection.Make]:
    """Reads a video; returns it, and what makes takes for it."""
    path = local_path(video, "the video")
    self.check(request)
    seconds = media.limited(media.video_duration)(path, limits=limits)
    if request.duration is not None:
      seconds = min(seconds, Fraction(request.duration))
    for start, end in request.regenerate:
      if start >= seconds:
        raise SettingError(
          f"regenerate={start:g}-{end:g} begins after the end of the sound, at"
          f" {float(seconds):g} s"
        )
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
      sounds = self._layered(scene, request, on_passage)
    else:
      sounds = self._sounds(scene, request, on_passage, like)

    @functools.cache  # Not before the first take: the picture is read again.
    def against() -> scoring.Against:
      judged = "sync_judge" in request.chosen_by
      return scoring.Against(
        motion=reel.motion,
        like=like and like.sound,
        prompt=request.prompt,
        clap=request.clap,
        picture=Watched(path, float(seconds), limits) if judged else None,
      )

    def make(seed: int, count: int) -> list[Soundtrack]:
      samples, layers = sounds(seed, count)
      takes = []
      for i in range(count):
        take = selection.judged(
          samples[i],
          self.sample_rate,
          seed + i,
          request=request,
          against=against(),
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
        diffusion=self.encoder.diffuses,
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
    scoring.prepare(request.chosen_by, request.clap)

  def _layered(
    self, scene: _Scene, request: Request, on_passage: OnPassage
  ) -> _Sounds:
    """Returns what makes sums of the request's layers."""
    count = len(request.layers)
    parts = {
      kind: self._sounds(
        scene,
        request.layer(kind, prompt),
        lambda share, before=before: on_passage((before + share) / count),
      )
      for before, (kind, prompt) in enumerate(request.layers)
    }

    def make(seed: int, count: int):
      layers = {kind: part(seed, count)[0] for kind, part in parts.items()}
      first, *others = layers.values()
      total = scratch.empty(first.shape)
      total[:] = first
      for other in others:
        total += other
      peaks = np.maximum(
        total.max(axis=(1, 2), keepdims=True, initial=1.0),
        -total.min(axis=(1, 2), keepdims=True, initial=-1.0),
      )
      for sound in (total, *layers.values()):
        sound /= peaks
      return total, layers

    return make

  def _sounds(
    self,
    scene: _Scene,
    request: Request,
    on_passage: OnPassage,
    like: Kept | None = None,
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
        if again := passage.prefix - passage.settled:
          parts[-1] = parts[-1][:, :-again]
        made = self._pass(
          scene, request, number, conditions(number), seed, count,
          kept=kept, like=like, prefix=prefix,
        )  # fmt: skip
        if number < len(scene.passages) - 1:
          made = made[:, : passage.end - passage.begin]
        parts.append(made[:, passage.settled :])
        on_passage((number + 1) / len(scene.passages))
      samples = self.decode(np.concatenate(parts, axis=1))
      if kept:
        for sound in samples:
          sound[:] = kept.put_back(sound)
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


def _prefix(before: np.ndarray, passage: Passage):
  """Returns what a passage continues, and how long it is held; see `draw`.

  `before` is what the passage before it added and continued, [b t ...].
  """
  count, held = passage.prefix, passage.held_until
  pad = [(0, 0), (0, len(held) - count)] + [(0, 0)] * (before.ndim - 2)
  return (
    np.pad(before[:, -count:], pad),
    np.broadcast_to(held, (len(before), len(held))),
  )
