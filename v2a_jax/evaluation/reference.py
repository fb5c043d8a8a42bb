"""Features of true sounds of other clips, which set distances are measured to.

(Sounds of the evaluated clips themselves would put the ground truth at zero by
construction.) They depend on nothing of the model but its sample rate and
window, so they are cached, under the digest of everything that they depend on.
"""

from collections.abc import Callable, Sequence
import dataclasses
import hashlib
import json
import os
import pathlib
import zipfile
import zlib

import numpy as np

from data_pipelines import manifest, source
from data_pipelines.loader import LoaderConfig
from v2a_jax import media
from v2a_jax.basics import cache, files
from v2a_jax.basics.paths import as_path
from v2a_jax.evaluation import clips, embeddings

_SPLITS = ("val", "test", "train")
_DAMAGE = (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclasses.dataclass(frozen=True)
class Reference:
  """True sounds of other clips.

  Attributes:
    features: their embedding features; None where there are fewer than two.
    about: where they come from, for results.json.
  """

  features: embeddings.Features | None
  about: str


def load(
  network: embeddings.Embedding,
  path: str | os.PathLike,
  split: str,
  *,
  exclude: Sequence[int],
  num: int,
  config: LoaderConfig,
  log: Callable[[str], None] = print,
) -> Reference:
  """Embeds true sounds of other clips, or reads them from the cache.

  They come from the rest of the evaluated split, then from the validation, test
  and training splits, in this order, until there are `num`.

  Args:
    network: the embedding network.
    path: folder of the data set.
    split: the evaluated split.
    exclude: indices of its evaluated records.
    num: number of sounds; fewer where the data set has no more.
    config: the model's loader, with its rate, channels and window.
    log: called with one line if the cache is damaged.
  """
  digest = files.sha256_of(as_path(path) / manifest.MANIFEST)
  key = [
    *(digest, split, sorted(exclude), num),
    *(config.sample_rate, config.channels, config.seconds),
    *(network.sha256, network.window, network.hop),
  ]
  name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
  kept = cache.root() / "evaluation" / f"{name}.npz"
  if reference := _read(kept, log):
    return reference
  waveforms, about = _waveforms(path, split, exclude, num, config)
  if len(waveforms) < 2:
    return Reference(None, "there are no two other clips to be the reference")
  rate = config.sample_rate
  features = embeddings.embed(network, waveforms, sample_rate=rate)
  reference = Reference(features, about)
  _write(kept, reference)
  return reference


def _waveforms(
  path, split, exclude, num, config
) -> tuple[list[np.ndarray], str]:
  """Returns float32 [samples, channels] each, and where they come from."""
  waveforms, counts = [], {}
  splits = manifest.read_manifest(path)["splits"]
  others = [name for name in _SPLITS if name in splits]
  names = [split] if split == "all" else dict.fromkeys([split, *others])
  for name in names:
    records = source.open_source(path, name)
    skipped = set(exclude) if name == split else set()
    for index in sorted(set(range(len(records))) - skipped):
      if len(waveforms) == num:
        break
      waveform = _waveform(records[index], config)
      if waveform is not None:
        waveforms.append(waveform)
        counts[name] = counts.get(name, 0) + 1
  parts = ", ".join(f"{count} of {name}" for name, count in counts.items())
  return waveforms, f"true sounds of other clips: {parts or 'none'}"


def _waveform(record, config: LoaderConfig) -> np.ndarray | None:
  if not record["audio"]:
    return None
  try:
    samples = media.limited(media.read_audio)(
      record["audio"],
      sample_rate=config.sample_rate,
      channels=config.channels,
      duration=min(config.seconds, record["duration"]),
    ).samples
  except media.MediaError:
    return None  # The counts in `about` say how many there are.
  if len(samples) < clips.LEAST_SECONDS * config.sample_rate:
    return None
  return np.clip(samples, -1.0, 1.0)


def _read(path: pathlib.Path, log) -> Reference | None:
  """Reads a cache file; None if it is missing or (logged) damaged."""
  try:
    with np.load(path, allow_pickle=False) as file:
      arrays = (file["vectors"], file["clips"], file["logits"])
      return Reference(embeddings.Features(*arrays), str(file["about"]))
  except FileNotFoundError:
    return None
  except (OSError, *_DAMAGE) as error:
    log(f"{path} cannot be read ({error}); the reference is embedded again")
    return None


def _write(path: pathlib.Path, reference: Reference) -> None:
  """Writes a cache file; does nothing where it cannot be written."""
  arrays = vars(reference.features) | {"about": reference.about}
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.written(path) as part:
      np.savez(part, **arrays)
  except OSError:
    pass
