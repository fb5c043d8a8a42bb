"""`v2a doctor`: what is here, what is missing, what to do about it.

Needs only Python: every look is taken on its own, and one that fails becomes
a line of the answer. JAX is asked in a child process, for a device that
another program holds can block or abort the asker.
"""

import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
from typing import Any

from launch import cli, parsing

ROOT = pathlib.Path(__file__).resolve().parents[1]
NEEDED = (
  "jax",
  "jaxlib",
  "flax",
  "optax",
  "orbax-checkpoint",
  "grain",
  "array_record",
  "tensorflow-datasets",
  "ml-collections",
  "sentencepiece",
  "av",
  "soundfile",
  "soxr",
  "safetensors",
  "jinja2",
  "wandb",
)
OPTIONAL = {
  "mir_eval": "v2a eval; pip install 'v2a_jax[eval]'",
  "librosa": "v2a eval; pip install 'v2a_jax[eval]'",
  "opencv-python-headless": "v2a eval; pip install 'v2a_jax[eval]'",
  "pytest": "make test; pip install 'v2a_jax[dev]'",
  "torch": "tests that compare with it, never at run time",
}
FREE_GB = 8  # What the quick start may use.
CHILD_SECONDS = 90
DEVICES = """
import json, jax
print("\\n" + json.dumps([
    {"platform": d.platform, "kind": d.device_kind,
     "memory": (d.memory_stats() or {}).get("bytes_limit")}
    for d in jax.devices()]))
"""
CODECS = """
import json
from v2a_jax.media.codecs import codecs
print("\\n" + json.dumps(codecs()))
"""
WEIGHTS = """
import json
from v2a_jax.pretrained import weights
print("\\n" + json.dumps(weights.listing()))
"""


def main(argv: list[str]) -> int:
  parser = parsing.make_parser(
    "v2a doctor",
    about="What is installed here, what is missing, what to do about it.",
    example="v2a doctor --json",
  )
  parser.add_argument("--json", action="store_true", help="for programs")
  parser.add_argument(
    "--strict", action="store_true", help="exit 1 if a needed part is missing"
  )
  args = parser.parse(argv)
  found = examine()
  print(json.dumps(found, indent=2) if args.json else describe(found))
  return 1 if args.strict and found["missing"] else 0


def examine() -> dict[str, Any]:
  """Everything that is known about this machine, ready for JSON."""
  packages = {name: version(name) for name in (*NEEDED, *OPTIONAL)}
  return {
    "v2a_jax": own_version(),
    "python": platform.python_version(),
    "platform": platform.platform(),
    "cores": os.cpu_count(),
    "memory_gb": memory_gb(),
    "disk": disk(),
    "packages": packages,
    "missing": [name for name in NEEDED if packages[name] is None],
    "devices": ask(DEVICES),
    "codecs": ask(CODECS),
    "bundles": bundles(),
    "weights": ask(WEIGHTS),
  }


def describe(found: dict[str, Any]) -> str:
  """The same, as lines for a person."""
  lines = [
    f"v2a_jax    {found['v2a_jax']}",
    f"python     {found['python']} on {found['platform']}",
    f"machine    {found['cores']} cores, {found['memory_gb']} GB of memory",
    f"disk       {_disk_line(found['disk'])}",
    f"devices    {_devices_line(found['devices'])}",
    f"codecs     {_codecs_line(found['codecs'])}",
    f"bundled    {', '.join(found['bundles']) or 'no trained weights'}",
    *_weights_lines(found["weights"]),
  ]
  for name, value in found["packages"].items():
    if value:
      lines.append(f"package    {name} {value}")
    elif name in OPTIONAL:
      lines.append(f"absent     {name} (optional: {OPTIONAL[name]})")
    else:
      lines.append(f"MISSING    {name}")
  if found["missing"]:
    lines.append(f"next       {install_line()}")
  else:
    lines.append("all needed parts are here")
  return "\n".join(lines)


def version(package: str) -> str | None:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None


def install_line() -> str:
  """The command that brings the missing packages, in versions that fit."""
  try:
    declared = importlib.metadata.requires("v2a_jax") or []
  except importlib.metadata.PackageNotFoundError:  # Run from its sources.
    return "pip install -e '.[eval]' -c constraints.txt"
  plain = [text for text in declared if "extra ==" not in text]
  return "pip install " + " ".join(f"'{text}'" for text in plain)


def own_version() -> str:
  import v2a_jax  # Imports nothing else.

  return v2a_jax.__version__


def memory_gb() -> float | None:
  try:
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  except (ValueError, OSError, AttributeError):  # Not on this system.
    return None
  return round(size / 1e9, 1)


def disk() -> dict[str, Any]:
  folder = pathlib.Path.cwd()
  free = shutil.disk_usage(folder).free / 1e9
  return {"folder": str(folder), "free_gb": round(free, 1)}


def bundles() -> list[str]:
  """Names of the trained weights that ship with the package."""
  assets = ROOT / "v2a_jax" / "assets"
  return sorted(p.parent.name for p in assets.glob("*/weights.safetensors"))


def ask(code: str) -> Any:
  """What a child process printed as JSON, or `{"error": why not}`."""
  env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
  env["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(ROOT), env.get("PYTHONPATH")])
  )
  try:
    done = subprocess.run(
      [sys.executable, "-c", code],
      capture_output=True,
      text=True,
      timeout=CHILD_SECONDS,
      env=env,
    )
  except subprocess.TimeoutExpired:
    return {"error": f"no answer in {CHILD_SECONDS} s; is a device held?"}
  if done.returncode == 0:
    return json.loads(done.stdout.splitlines()[-1])
  last = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
  return {"error": last[-1]}


def _disk_line(found: dict) -> str:
  enough = "" if found["free_gb"] >= FREE_GB else f", want {FREE_GB} GB"
  return f"{found['free_gb']} GB free in {found['folder']}{enough}"


def _devices_line(found: Any) -> str:
  if "error" in found:
    return f"unknown: {found['error']}"
  kinds = [f"{d['platform']} ({d['kind']})" for d in found]
  return ", ".join(f"{kinds.count(k)} x {k}" for k in sorted(set(kinds)))


def _codecs_line(found: Any) -> str:
  if "error" in found:
    return f"unknown: {found['error']}"
  return "; ".join(f"{kind} {' '.join(found[kind])}" for kind in found)


def _weights_lines(found: Any) -> list[str]:
  if "error" in found:
    return [f"weights    unknown: {found['error']}"]
  return [
    f"weights    {row['name']}: {row['state']} {row['path']}".rstrip()
    + ("" if row["path"] else f" (v2a weights fetch {row['name']})")
    for row in found
  ]


if __name__ == "__main__":
  raise SystemExit(cli.main_of("doctor"))
