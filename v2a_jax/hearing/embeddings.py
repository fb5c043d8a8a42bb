"""Embeddings of sounds by frozen networks, for set distances and tagging.

A clip is resampled once (soxr, high quality), mixed to mono, and cut into
windows, which for most networks overlap, so that a few clips still give many
embeddings; each keeps the index of its clip, because intervals resample clips,
not windows. Metrics name their embedding by its id, a key of `EMBEDDINGS`; its
id, window and the sha256 of its weights stand beside every result.

Rows and reference come at one rate (formats.py), because a distance between
sounds of 16 kHz and sounds of 48 kHz is mostly the missing treble.
"""

from collections.abc import Sequence
import dataclasses
import os
import types
from typing import ClassVar, Protocol

import jax
import numpy as np
import soxr

from v2a_jax.basics.text import one_of
from v2a_jax.hearing.synchformer import Synchformer
from v2a_jax.pretrained import (
  aisfx,
  clap_audio,
  cnn14,
  mn04,
  passt,
  silero,
  vggish,
  yamnet,
)
from v2a_jax.weights import registry as weights

# A batch holds about this much sound, but no more windows than the other.
_BATCH_SECONDS, _BATCH = 32.0, 32


class Embedding(Protocol):
  """A frozen network that embeds and tags sounds.

  Attributes:
    id: short name, part of the id of every metric that uses it.
    sha256: digest of the weights file.
    sample_rate: rate that `apply` expects, Hz.
    window: length of a window, seconds; 0 for the whole clip.
    hop: distance between window starts, seconds; 0 for the whole clip.
    dim: number of features of a window, d.
    classes: number of class logits, c; 0 where it does not tag.
    repeats: whether a clip shorter than a window is repeated while it fits
      whole, before silence fills the window.
  """

  id: str
  sha256: str
  sample_rate: int
  window: float
  hop: float
  dim: int
  classes: int
  repeats: bool

  def apply(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns embeddings [n, d] and class logits [n, c] of [n, samples]."""
    ...


class Published:
  """A network of `v2a_jax/pretrained` with its published weights.

  A class states its `label` and names its module of `v2a_jax/pretrained`, which
  has SAMPLE_RATE, EMBEDDING_DIM, NUM_CLASSES, `load(path)` and
  `apply(params, waveforms)`; and WINDOW and HOP in samples, where the class
  does not state `window` and `hop`. Unless it states others, its weights have
  the module's name, and its id is theirs.

  Attributes:
    weights: name of the weights in `weights.WEIGHTS`.
    label: its name in reports.
    about: what is embedded, in words: the first line of the class's docstring.
  """

  id: ClassVar[str]
  label: ClassVar[str]
  about: ClassVar[str]
  weights: ClassVar[str]
  network: ClassVar[types.ModuleType]
  window: ClassVar[float]
  hop: ClassVar[float]
  sha256: str
  sample_rate: int
  dim: int
  classes: int
  repeats: ClassVar[bool] = False

  def __init_subclass__(
    cls,
    *,
    network: types.ModuleType,
    window: float | None = None,
    hop: float | None = None,
  ):
    cls.network = network
    module = network.__name__.rpartition(".")[2]
    cls.weights = vars(cls).get("weights", module)
    cls.id = vars(cls).get("id", cls.weights)
    cls.about = cls.__doc__.splitlines()[0].rstrip(".")
    cls.sha256 = weights.get(cls.weights).sha256
    cls.sample_rate = network.SAMPLE_RATE
    if window is None:
      window = network.WINDOW / cls.sample_rate
      hop = network.HOP / cls.sample_rate
    cls.window, cls.hop = window, hop
    cls.dim = network.EMBEDDING_DIM
    cls.classes = network.NUM_CLASSES

  def __init__(self, path: str | os.PathLike[str] | None = None):
    """Loads the weights; `path` and errors are those of `weights.find`."""
    self._params = self.network.load(path)
    self.sha256 = weights.digest(self.weights, path)
    self._run = jax.jit(self.network.apply)

  def apply(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # One shape is compiled; the last batch is padded with silence.
    count = len(windows)
    seconds = windows.shape[1] / self.sample_rate
    size = int(np.clip(_BATCH_SECONDS / seconds, 1, _BATCH))
    windows = np.pad(windows, ((0, -count % size), (0, 0)))
    batches = np.split(windows, len(windows) // size)
    outputs = [self._run(self._params, batch) for batch in batches]
    vectors, logits = (np.concatenate(parts)[:count] for parts in zip(*outputs))
    return vectors, logits


class Mn04(Published, network=mn04, window=1.0, hop=0.5):
  """EfficientAT mn04 on 1 s windows, one every 0.5 s."""

  label = "mn04"


class Mn04Clip(Published, network=mn04, window=0.0, hop=0.0):
  """EfficientAT mn04 on whole clips, as taggers are used in papers."""

  id = "mn04_clip"
  label = "mn04, whole clips"


class AiSFX(Published, network=aisfx):
  """aiSFX on 2.3 s windows, one every 1.2 s."""

  label = "aiSFX"


class YAMNet(Published, network=yamnet):
  """YAMNet on 0.975 s windows, one every 0.48 s."""

  label = "YAMNet"


class VGGish(Published, network=vggish):
  """VGGish before its last ReLU on 0.96 s windows, one after the other."""

  label = "VGGish"


class Cnn14(Published, network=cnn14, window=0.0, hop=0.0):
  """PANNs Cnn14 on whole clips."""

  label = "PANNs"


class PaSST(Published, network=passt, window=10.0, hop=5.0):
  """PaSST-S on 10 s windows, padded with silence, one every 5 s."""

  label = "PaSST"


class CLAP(Published, network=clap_audio, window=clap_audio.SECONDS, hop=5.0):
  """LAION's CLAP on 10 s windows, repeated to fill them, one every 5 s."""

  label, weights = "CLAP", "clap"
  repeats = True

  def apply(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    vectors, logits = super().apply(windows)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12), logits


class Silero(Published, network=silero, window=0.0, hop=0.0):
  """Silero VAD on whole clips: seconds in which somebody speaks."""

  label = "Silero VAD"

  def apply(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    short = -windows.shape[1] % self.sample_rate  # Fewer shapes are compiled.
    return super().apply(np.pad(windows, ((0, 0), (0, short))))


# What sets of sounds can be compared on.
_ALL = (Mn04, Mn04Clip, AiSFX, YAMNet, VGGish, Cnn14, PaSST, CLAP, Synchformer)
EMBEDDINGS: dict[str, type[Embedding]] = {cls.id: cls for cls in _ALL}


def get(id_: str) -> type[Embedding]:
  """Returns the embedding of an id.

  Raises:
    ValueError: there is none; names those there are.
  """
  if id_ not in EMBEDDINGS:
    raise ValueError(f"embedding={id_!r} {one_of(EMBEDDINGS)}")
  return EMBEDDINGS[id_]


def span(embedding: Embedding) -> str:
  """Says what is embedded at a time, for results."""
  if not embedding.window:
    return f"whole clips, {embedding.sample_rate} Hz"
  return (
    f"{embedding.window:g} s every {embedding.hop:g} s,"
    f" {embedding.sample_rate} Hz"
  )


@dataclasses.dataclass(frozen=True)
class Features:
  """Embeddings and class logits of a set of clips.

  Attributes:
    vectors: embeddings of windows, float32 [n, d].
    clips: clip index of each window, int [n]; every clip has one or more.
    logits: class logits, averaged over a clip's windows, float32 [clips, c];
      c = 0 where the network does not tag.
  """

  vectors: np.ndarray
  clips: np.ndarray
  logits: np.ndarray

  def split(self) -> list["Features"]:
    """Returns the features of each clip alone."""
    return [
      Features(vectors, np.zeros(len(vectors), int), logits[None])
      for i, logits in enumerate(self.logits)
      for vectors in [self.vectors[self.clips == i]]
    ]


def cut(
  waveform: np.ndarray, sample_rate: int, *, embedding: Embedding
) -> np.ndarray:
  """Cuts a clip [samples, channels] into windows, float32 [n, window samples].

  What is left after the last whole window is not used, and a clip shorter than
  one window is repeated, where the network wants it, and padded with silence.
  Whole clips are one window, of a tenth of a second or more.
  """
  mono = np.asarray(waveform, np.float32).mean(axis=1)
  if sample_rate != embedding.sample_rate:
    mono = soxr.resample(mono, sample_rate, embedding.sample_rate, quality="HQ")
  length, hop = (
    round(seconds * embedding.sample_rate)
    for seconds in (embedding.window, embedding.hop)
  )
  if not length:
    length = hop = max(len(mono), embedding.sample_rate // 10)
  if embedding.repeats and len(mono) < length:
    mono = clap_audio.repeated(mono, length)
  mono = np.pad(mono, (0, max(0, length - len(mono))))
  windows = np.lib.stride_tricks.sliding_window_view(mono, length)
  return windows[::hop].astype(np.float32)


def embed(
  embedding: Embedding, waveforms: Sequence[np.ndarray], *, sample_rate: int
) -> Features:
  """Embeds one clip or more, each float32 [samples, channels]."""
  windows = [cut(w, sample_rate, embedding=embedding) for w in waveforms]
  clips = np.repeat(np.arange(len(windows)), [len(w) for w in windows])
  vectors, logits = _apply(embedding, windows)
  totals = np.zeros((len(windows), logits.shape[1]))
  np.add.at(totals, clips, logits)
  sizes = np.bincount(clips)[:, None]
  return Features(vectors, clips, (totals / sizes).astype(np.float32))


def _apply(embedding: Embedding, windows: Sequence[np.ndarray]):
  """Embeds the windows of clips, those of one length together."""
  lengths = np.repeat([w.shape[1] for w in windows], [len(w) for w in windows])
  outputs = [None, None]
  for length in dict.fromkeys(lengths):
    own = lengths == length
    same = np.concatenate([w for w in windows if w.shape[1] == length])
    for i, part in enumerate(embedding.apply(same)):
      if outputs[i] is None:
        outputs[i] = np.zeros((len(lengths), part.shape[1]), np.float32)
      outputs[i][own] = part
  return outputs


def joined(features: Sequence[Features]) -> Features:
  """Joins the features of single clips, in their order."""
  counts = [len(of.vectors) for of in features]
  return Features(
    np.concatenate([of.vectors for of in features]),
    np.repeat(np.arange(len(counts)), counts),
    np.concatenate([of.logits for of in features]),
  )
