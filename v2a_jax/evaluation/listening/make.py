"""Makes a blind listening test: one page, and the key to its sounds.

The page holds its clips and opens without a network. It calls sounds by random
codes; which system a code is of stands in the key only. A listener's answers
come back as a JSON file, which `score.py` reads.
"""

from collections.abc import Sequence
import dataclasses
import hashlib
import itertools
import json
import pathlib
import random
import tempfile
from typing import Any

import jinja2

from v2a_jax import media
from v2a_jax.basics import files
from v2a_jax.basics.paths import local_path
from v2a_jax.basics.settings import check, choose
from v2a_jax.evaluation.report import gallery, loading
from v2a_jax.evaluation.schema import GENERATED, GROUND_TRUTH
from v2a_jax.soundtrack.loudness import level

SCHEMA = 1
PAIRS, RATING = "pairs", "rating"
_TEMPLATES = pathlib.Path(__file__).parent / "templates"
_QUESTIONS = {
  PAIRS: "Which sound belongs to this picture?",
  RATING: "How well does the sound go with the picture?",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListeningOptions:
  """Options of a listening test.

  Attributes:
    kind: "pairs", of which a listener prefers one or neither, or "rating" of
      single sounds from 1 (bad) to 5 (excellent), as in ITU-T P.800.
    rows: rows of the results whose sounds are judged, besides `generated`.
    num_clips: largest number of clips, drawn at random.
    loudness: loudness in LUFS that all sounds are brought to, because the louder
      of two is preferred.
    seed: random seed of clips and codes.
  """

  kind: str = PAIRS
  rows: tuple[str, ...] = (GROUND_TRUTH,)
  num_clips: int = 12
  loudness: float = -23.0
  seed: int = 0

  def __post_init__(self):
    choose(self, kind=(PAIRS, RATING))
    check(self, num_clips="[1, inf)", loudness="[-70, 0]")


@dataclasses.dataclass(frozen=True)
class _Clip:
  """A clip with a sound of every system."""

  id: str
  video: pathlib.Path | None
  sounds: dict[str, pathlib.Path]


def write_test(
  results: Sequence[str | pathlib.Path],
  out: str | pathlib.Path,
  options: ListeningOptions = ListeningOptions(),  # noqa: B008
) -> tuple[pathlib.Path, pathlib.Path]:
  """Writes a listening test.

  Args:
    results: results.json files, or folders that hold one or several.
    out: path of the page, with the suffix .html; the key is `<out>.key.json`.
    options: what is asked about which sounds.

  Returns:
    (page, key).

  Raises:
    ValueError: fewer than two systems to compare, no clip that has a sound of
      all of them, a sound that cannot be read, or another suffix.
  """
  out = local_path(out, "the page")
  if out.suffix != ".html":
    raise ValueError(f"output must end in .html, not {out.name}")
  systems, clips = _collect(loading.load_runs(results), options.rows)
  if len(systems) < 2:
    raise ValueError(
      f"there is one system to listen to, {', '.join(systems) or 'none'}: name"
      " more results, or more --rows"
    )
  if not clips:
    raise ValueError(
      f"no clip has a sound of each of {', '.join(systems)}: evaluate them on"
      " the same clips, with a larger --gallery_clips"
    )
  rng = random.Random(options.seed)
  clips = rng.sample(clips, min(options.num_clips, len(clips)))
  codes = {
    (clip.id, system): f"{rng.getrandbits(64):016x}"
    for clip in clips
    for system in systems
  }
  key = {
    "schema": SCHEMA,
    "kind": options.kind,
    "systems": systems,
    "sounds": {
      code: {"clip": clip, "system": system}
      for (clip, system), code in codes.items()
    },
  }
  key["test"] = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
  data = {
    "test": key["test"],
    "kind": options.kind,
    "videos": [gallery.data_url(clip.video) for clip in clips],
    "sounds": _sounds(clips, codes, options),
    "trials": _trials(clips, systems, codes, options.kind),
  }
  out.parent.mkdir(parents=True, exist_ok=True)
  place = out.with_suffix(".key.json")
  files.write_json(place, key)
  files.write_whole(out, _render(data))
  return out, place


def _collect(
  runs: Sequence[dict], rows: Sequence[str]
) -> tuple[list[str], list[_Clip]]:
  """Returns the names of the systems, and the clips that all of them have."""
  sounds: dict[str, dict[str, pathlib.Path]] = {}
  videos: dict[str, pathlib.Path | None] = {}
  systems: dict[str, None] = {}
  for run in runs:
    for clip in run["clips"]:
      own = sounds.setdefault(clip["id"], {})
      for row in (GENERATED, *rows):
        name = run["name"] if row == GENERATED else row
        path = gallery.inside(run["folder"], clip.get("audio", {}).get(row), [])
        if path:
          systems[name] = None
          own.setdefault(name, path)
      video = gallery.inside(run["folder"], clip.get("video"), [])
      videos[clip["id"]] = videos.get(clip["id"]) or video
  clips = [
    _Clip(id_, videos[id_], own)
    for id_, own in sounds.items()
    if own and own.keys() == systems.keys()
  ]
  return list(systems), clips


def _sounds(clips, codes, options: ListeningOptions) -> dict[str, str]:
  """Returns data addresses of all sounds by code, at one loudness."""
  urls = {}
  with tempfile.TemporaryDirectory() as folder:
    for clip in clips:
      for system, path in clip.sounds.items():
        rate = media.probe_limited(path).sample_rate or 48_000
        sound = media.limited(media.read_audio)(path, sample_rate=rate)
        samples = level(sound.samples, rate, loudness=options.loudness)
        code = codes[clip.id, system]
        file = media.encode_audio(
          pathlib.Path(folder, f"{code}.m4a"), samples, rate
        )
        urls[code] = gallery.data_url(file)
  return urls


def _trials(clips, systems, codes, kind: str) -> list[dict[str, Any]]:
  """Returns what is heard together: pairs of a clip's sounds, or one."""
  heard = itertools.combinations(systems, 2 if kind == PAIRS else 1)
  return [
    {"video": i, "sounds": [codes[clip.id, system] for system in group]}
    for group in heard
    for i, clip in enumerate(clips)
  ]


def _render(data: dict[str, Any]) -> str:
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_TEMPLATES),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
  )
  read = lambda name: (_TEMPLATES / name).read_text(encoding="utf-8")
  return environment.get_template("listen.html.jinja").render(
    question=_QUESTIONS[data["kind"]],
    pairs=data["kind"] == PAIRS,
    number=len(data["trials"]),
    # Within a script, only the end of the script could be misread.
    data=json.dumps(data).replace("<", "\\u003c"),
    script=read("listen.js"),
    style=read("listen.css"),
  )
