"""Measures the robustness of the watermark; prints tables in Markdown.

  python -m benchmarks.watermark_robustness CLIPS... [--num 100] [-o rows.jsonl]
  python -m benchmarks.watermark_robustness CLIPS... --unmarked

CLIPS are folders of audio or video files, searched recursively. Excerpts of
four seconds of `num` random files of each, and of `num` scenes and of `num`
soundtracks by the bundled model with `--scenes` and `--generated`, are marked
with a key and payload of their own, attacked, and searched for the watermark.
It counts as found at a false positive probability of at most 1e-4.

With `-o`, each clip's results are a line there at once, and attacks on it that
are there are not measured again: an interrupted run goes on, and `--table`
prints what is there.

With `--unmarked`, the clips are searched without a watermark in them, under
the same keys and attacks: how often is one found? `--speech` names the folders
of speech, of which the quality is measured by PESQ (wide band, ITU-T P.862.2,
by the package `pesq`: marked against unmarked, 4.64 if nothing is heard).

With `--places`, every marked clip is laid between copies of the one before it,
which has no mark, and delivered as MP4: where does the detector say it is?

The null distribution is measured, too: scores of unmarked clips under many
keys, compared with the bound exp(-z^2 / 2) that `detect` reports.
"""

import argparse
from collections.abc import Iterator
import json
import pathlib
import random
import tempfile

import librosa
import numpy as np
from scipy import stats

from benchmarks.watermark_attacks import ATTACKS, OTHER, RATE, video
from data_pipelines import scenes
from v2a_jax import media, watermark
from v2a_jax.soundtrack.tracker import Soundtracker
from v2a_jax.watermark import pattern, search

SECONDS = 4.0
SUFFIXES = (".wav", ".ogg", ".flac", ".mp3", ".mp4", ".m4a")


def read_clips(
  folder: pathlib.Path, num: int, seed: int, shortest: float = SECONDS
) -> Iterator[tuple[str, np.ndarray]]:
  """Yields names and samples [t, 1] of `num` excerpts of 4 s of random files.

  Silent files are left out, and those shorter than `shortest` seconds; others
  of less than 4 s are taken whole. One of 8 s or more gives several.
  """
  files = sorted(f for f in folder.rglob("*") if f.suffix in SUFFIXES)
  random.Random(seed).shuffle(files)
  size, count = round(SECONDS * RATE), 0
  for file in files:
    try:
      samples = media.read_audio(file, sample_rate=RATE, channels=1).samples
    except media.MediaError as error:
      print(error)
      continue
    # A lossy file of 4 s may lack a few samples at the end.
    samples = np.pad(samples, ((0, RATE // 100), (0, 0)))
    enough = min(size, max(len(samples), round(shortest * RATE)))
    for start in range(0, len(samples) - enough + 1, size):
      excerpt = samples[start : start + size]
      if excerpt.any() and count < num:
        count += 1
        yield f"{file.name} {start // RATE}", excerpt


def read_scenes(num: int, seed: int) -> Iterator[tuple[str, np.ndarray]]:
  """Yields names and sounds of scenes."""
  for i in range(num):
    scene = scenes.make_scene(seed * 1_000_003 + i, seconds=SECONDS)
    yield f"scene {i}", scene.audio.reshape(len(scene.audio), -1)[:, :1]


def generate(num: int, seed: int) -> Iterator[tuple[str, np.ndarray]]:
  """Yields names and soundtracks that the bundled model makes for scenes."""
  tracker = Soundtracker.load()
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, "x.mp4")
    for i in range(num):
      scene = scenes.make_scene(seed * 1_000_003 + i, seconds=SECONDS)
      media.encode_video(scene.frames, fps=scene.fps, path=path)
      take = tracker(path, num_candidates=1, seed=i).best
      yield f"generated {i}", take.samples[:, :1]


def measure(
  clip: np.ndarray,
  seed: str,
  attacks: list[str],
  unmarked: list[str],
  places: bool,
  speech: bool,
) -> dict:
  """Attacks a clip and searches the watermark.

  Args:
    clip: excerpt [t, 1].
    seed: text that key, payload and attacks are drawn from.
    attacks: names of the attacks on the marked clip.
    unmarked: names of the attacks on the clip as it was.
    places: whether it is searched between clips without a mark.
    speech: whether its quality is measured by PESQ.

  Returns:
    `attacks`: found, payload is right, score, by attack; `unmarked`: the same,
    without the payload; `places`: starts and ends in seconds after the start of
    the mark, None if none is found. If there are `attacks`, `ratio`: signal to change in dB,
    and `distance`: change of the log-mel spectrum in dB. If asked for, `pesq`.
  """
  draw = lambda what: np.random.default_rng(list(f"{seed} {what}".encode()))
  key, payload = f"owner {seed}", int(draw("payload").integers(1 << 16))
  row = {"attacks": {}, "unmarked": {}}
  with tempfile.TemporaryDirectory() as folder:

    def search(samples, name):
      attacked = ATTACKS[name](samples, draw(name), pathlib.Path(folder))
      return watermark.detect(attacked.astype(np.float32), RATE, key=key)

    for name in unmarked:
      found = search(clip, name)
      row["unmarked"][name] = [found.found, round(found.score, 2)]
    if not (attacks or places or speech):
      return row
    marked = watermark.embed(clip, RATE, key=key, payload=payload)
    for name in attacks:
      found = search(marked, name)
      right = found.payload == payload
      row["attacks"][name] = [found.found, right, round(found.score, 2)]
    if places:
      other = np.resize(OTHER[0], (round(SECONDS * RATE), 1))
      laid = np.concatenate([other, marked, other])
      found = watermark.detect(
        video(laid, None, pathlib.Path(folder)), RATE, key=key
      )
      row["places"] = [
        [round(p.start - SECONDS, 2), round(p.end - SECONDS, 2)]
        for p in found.places
      ] or None
  if speech:
    import pesq

    row["pesq"] = round(pesq.pesq(RATE, clip[:, 0], marked[:, 0], "wb"), 3)
  if attacks:
    change = np.sum((marked - clip) ** 2) + 1e-12
    ratio = 10 * np.log10(np.sum(clip**2) / change)
    row["ratio"] = round(float(ratio), 2)
    row["distance"] = round(mel_distance(clip, marked), 3)
  return row


def mel_distance(before: np.ndarray, after: np.ndarray) -> float:
  """Returns the root mean square change in dB of 64 log-mel bands.

  Bands more than 60 dB under the loudest do not count.
  """
  power = lambda x: librosa.feature.melspectrogram(
    y=x[:, 0].astype(np.float32), sr=RATE, n_fft=1024, hop_length=256, n_mels=64
  )
  first, second = power(before), power(after)
  floor = first.max() * 1e-6
  levels = lambda x: 10 * np.log10(np.maximum(x, floor))
  change = (levels(second) - levels(first))[first > floor]
  return float(np.sqrt(np.mean(change**2))) if change.size else 0.0


def measure_null(clips: list[np.ndarray], keys: int, seed: int) -> dict:
  """Counts scores of unmarked audio above 3, 4, 5 and 6.

  The resultants of a clip do not depend on the key, so one pass scores every
  start of the tile under all keys.

  Args:
    clips: excerpts [t, 1].
    keys: number of keys.
    seed: seed of the keys.
  """
  names = [f"nobody {seed} {i}".encode() for i in range(keys)]
  where = ~pattern.carries_payload().T
  signs = np.stack([np.exp(-1j * pattern.phases(k)).T[where] for k in names])
  thresholds = np.array([3.0, 4.0, 5.0, 6.0])
  counts, total, highest = np.zeros(4, int), 0, 0.0
  for clip in clips:
    power = search.power_of(clip[:, 0])
    bands = pattern.band_matrix()
    energies = search.slot_energies(bands @ power, search.SLOT / 2)
    for chips in search.weighted_chips(*energies, bands.sum(1)):
      resultants = np.stack(list(search.fold(chips, search.SLOT)))[where]
      spread = np.sqrt((np.abs(resultants) ** 2).sum(0) / 2) + 1e-14
      scores = (signs.astype(np.complex64) @ resultants).real / spread
      counts += [(scores > t).sum() for t in thresholds]
      total += scores.size
      highest = max(highest, float(scores.max()))
  return {
    "thresholds": thresholds,
    "counts": counts,
    "total": total,
    "highest": highest,
  }


def table(rows: list[dict]) -> str:
  """Formats rows of `measure` as Markdown, with Wilson's intervals of 95 %."""
  ratios = np.array([row["ratio"] for row in rows])
  distances = np.array([row["distance"] for row in rows])
  kinds = list(dict.fromkeys(row["kind"] for row in rows))
  count = lambda kind: sum(row["kind"] == kind for row in rows)
  lines = [
    f"N = {len(rows)} clips of {SECONDS:.0f} s ("
    + ", ".join(f"{kind} {count(kind)}" for kind in kinds)
    + f"); signal to change {np.median(ratios):.1f} dB (median; 10 % under"
    f" {np.percentile(ratios, 10):.1f} dB); log-mel change"
    f" {np.median(distances):.2f} dB (10 % over"
    f" {np.percentile(distances, 90):.2f} dB).",
    "",
    "| change | clips | found | 95 % interval | payload read | median z |"
    " lowest decile of z | least found in |",
    "|---|---:|---:|---:|---:|---:|---:|---|",
  ]
  for name in ATTACKS:
    part = [row for row in rows if name in row["attacks"]]
    if not part:
      continue
    found, right, z = np.array([r["attacks"][name] for r in part], float).T
    low, high = stats.binomtest(int(found.sum()), len(found)).proportion_ci(
      method="wilson"
    )
    share = {
      kind: np.mean([r["attacks"][name][0] for r in part if r["kind"] == kind])
      for kind in dict.fromkeys(row["kind"] for row in part)
    }
    least = min(share, key=share.get)
    lines.append(
      f"| {name} | {len(part)} | {100 * found.mean():.1f} % | {100 * low:.1f}-{100 * high:.1f}"
      f" | {100 * right.mean():.1f} % | {np.median(z):.1f} "
      f"| {np.percentile(z, 10):.1f} | {least}, {100 * share[least]:.0f} % |"
    )
  return "\n".join(lines) + "\n"


def unmarked_table(rows: list[dict]) -> str:
  """Formats searches of unmarked clips, with Clopper and Pearson's bound."""
  lines = [
    "| unmarked clips after | clips | found | at most (95 %) | highest z |",
    "|---|---:|---:|---:|---:|",
  ]
  searches = {
    name: [row["unmarked"][name] for row in rows if name in row["unmarked"]]
    for name in ATTACKS
  }
  for name, part in searches.items():
    if part:
      found = sum(found for found, _ in part)
      most = stats.beta.ppf(0.95, found + 1, len(part) - found)
      highest = max(z for _, z in part)
      lines.append(
        f"| {name} | {len(part)} | {found} | {100 * most:.2f} %"
        f" | {highest:.1f} |"
      )
  return "\n".join(lines) + "\n"


def places_table(rows: list[dict]) -> str:
  """Formats where marks between clips without one were found."""
  named = [row["places"] for row in rows if row["places"]]
  single = np.array([places[0] for places in named if len(places) == 1])
  every = np.array(sum(named, []))
  outside = (every[:, 1] <= 0) | (every[:, 0] >= SECONDS)
  errors = np.abs(single - (0, SECONDS))
  most = stats.beta.ppf(0.95, outside.sum() + 1, len(every) - outside.sum())
  return (
    f"Marked clips of {SECONDS:.0f} s between two others, delivered as MP4:"
    f" {len(rows)}; in one place {len(single)}, in more"
    f" {len(named) - len(single)}, in none {len(rows) - len(named)}."
    f" Its start is off by {np.median(errors[:, 0]):.2f} s and its end by"
    f" {np.median(errors[:, 1]):.2f} s (median; 95 %: under"
    f" {np.percentile(errors[:, 0], 95):.2f} and"
    f" {np.percentile(errors[:, 1], 95):.2f} s). Wholly outside the mark:"
    f" {outside.sum()} of {len(every)} places (at most {100 * most:.1f} %).\n"
  )


def quality_table(rows: list[dict]) -> str:
  """Formats the quality of marked speech."""
  scores = [row["pesq"] for row in rows]
  low, median, high = np.percentile(scores, [10, 50, 90])
  return (
    f"PESQ (wide band) of marked against unmarked speech, {len(rows)} clips:"
    f" mean {np.mean(scores):.2f}, median {median:.2f}, lowest and highest"
    f" decile {low:.2f} and {high:.2f}, lowest {min(scores):.2f}.\n"
  )


def null_table(null: dict) -> str:
  """Formats the result of `measure_null` as Markdown."""
  lines = [
    f"Null: {null['total']:,} scores of unmarked clips, highest "
    f"{null['highest']:.2f}.",
    "",
    "| z above | measured | Gaussian | reported bound |",
    "|---|---:|---:|---:|",
  ]
  for threshold, count in zip(null["thresholds"], null["counts"]):
    gaussian = stats.norm.sf(threshold)
    lines.append(
      f"| {threshold:.0f} | {count / null['total']:.1e} | {gaussian:.1e} "
      f"| {np.exp(-(threshold**2) / 2):.1e} |"
    )
  return "\n".join(lines) + "\n"


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    "clips", type=pathlib.Path, nargs="+", help="folders of sound or video"
  )
  parser.add_argument("--num", type=int, default=100, help="clips of a folder")
  parser.add_argument("--scenes", action="store_true")
  parser.add_argument("--generated", action="store_true")
  parser.add_argument(
    "--keys", type=int, default=0, help="keys of the null distribution"
  )
  parser.add_argument("--only", nargs="*", help="names of attacks; all if none")
  parser.add_argument(
    "--unmarked", action="store_true", help="search clips without a watermark"
  )
  parser.add_argument(
    "--places", action="store_true", help="say where the mark is; no attacks"
  )
  parser.add_argument(
    "--speech", nargs="*", default=[], help="names of folders of speech"
  )
  parser.add_argument(
    "--shortest", type=float, default=SECONDS, help="seconds of a clip"
  )
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("-o", "--out", type=pathlib.Path)
  parser.add_argument("--table", action="store_true", help="measure no more")
  args = parser.parse_args()
  out, names = args.out, args.only or list(ATTACKS)
  if args.places:
    names = []
  measured = "unmarked" if args.unmarked else "attacks"
  rows = {}
  if out and out.exists():
    for line in out.read_text().splitlines():
      add(rows, json.loads(line))
  sources = {
    f.name: read_clips(f, args.num, args.seed, args.shortest)
    for f in args.clips
  }
  if args.scenes:
    sources["scenes"] = read_scenes(args.num, args.seed)
  if args.generated:
    sources["generated"] = generate(args.num, args.seed)
  unmarked = []
  for kind, name, clip in () if args.table else turns(sources):
    if args.keys:
      unmarked.append(clip)
    known = {"attacks": {}, "unmarked": {}} | rows.get((kind, name), {})
    missing = [x for x in names if x not in known[measured]]
    todo = {"attacks": [], "unmarked": [], measured: missing}
    todo["places"] = args.places and "places" not in known
    todo["speech"] = kind in args.speech and "pesq" not in known
    if any(todo.values()):
      row = measure(clip, f"{args.seed} {kind} {name}", **todo)
      add(rows, row := {"kind": kind, "name": name} | row)
      if out:
        with out.open("a") as file:
          file.write(json.dumps(row) + "\n")
      print(f"{len(rows)} clips", end="\r", flush=True)
    OTHER[0] = clip
  for what, shown in (
    ("attacks", table),
    ("unmarked", unmarked_table),
    ("places", places_table),
    ("pesq", quality_table),
  ):
    if part := [row for row in rows.values() if row.get(what, {}) != {}]:
      print(shown(part))
  if unmarked:
    print(null_table(measure_null(unmarked, args.keys, args.seed)))


def add(rows: dict, row: dict) -> None:
  """Adds a row to those that are there, or what it has to its clip's."""
  known = rows.setdefault((row["kind"], row["name"]), {})
  for what, value in row.items():
    old = known.get(what)
    known[what] = old | value if isinstance(old, dict) else value


def turns(sources: dict) -> Iterator[tuple[str, str, np.ndarray]]:
  """Yields a clip of each source in turn, until all are at their end."""
  while sources:
    for kind in list(sources):
      found = next(sources[kind], None)
      if found is None:
        del sources[kind]
      else:
        yield kind, *found


if __name__ == "__main__":
  main()
