"""Check packages, devices, codecs, weights and disk space.

Shows what is installed on this machine, and how to install what is missing.
"""

# Needs only Python: each check stands alone, and one that fails becomes a line
# of the answer. What needs JAX or other packages is asked in a child process,
# because a device that another program holds can block or abort the asker.

from collections import Counter
from collections.abc import Callable
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
from typing import Any

from launch import parsing
import v2a_jax  # Imports nothing else.

ARGUMENTS = """
--json                print JSON in place of text
--strict              exit with status 1 if a package is missing
"""
ROOT = pathlib.Path(__file__).resolve().parents[1]
NEEDED = (
  "jax jaxlib etils flax fsspec optax orbax-checkpoint numpy scipy grain array_record"
  " tensorflow-datasets protobuf pyarrow sentencepiece av soundfile soxr"
  " pyloudnorm safetensors absl-py ml-collections jinja2 markupsafe"
  " threadpoolctl wandb py3langid"
).split()
_EVAL = (
  "librosa mir_eval opencv-python-headless pocketsphinx rapidfuzz scikit-learn"
)
OPTIONAL = dict.fromkeys(
  _EVAL.split(), "v2a eval; pip install 'v2a_jax[eval]'"
) | {
  "c2pa-python": "v2a generate, to sign files; pip install 'v2a_jax[delivery]'",
  "fastapi": "v2a serve; pip install 'v2a_jax[ui]'",
  "markdown-it-py": "v2a serve; pip install 'v2a_jax[ui]'",
  "opentimelineio": "v2a generate --timeline otio; pip install 'v2a_jax[delivery]'",
  "uvicorn": "v2a serve; pip install 'v2a_jax[ui]'",
  "gcsfs": "v2a with gs:// paths; pip install 'v2a_jax[cloud]'",
  "s3fs": "v2a with s3:// paths; pip install 'v2a_jax[cloud]'",
  "tensorboardX": "v2a train with config.tensorboard; pip install 'v2a_jax[tensorboard]'",
  "pytest": "make test; pip install 'v2a_jax[dev]'",
  "pesq": "tests that judge marked speech by it, never at run time",
  "torch": "tests that compare with it, never at run time",
}
FREE_GB = 8  # Disk space that the quick start may use.
CHILD_SECONDS = 90
# What a child process runs; each sets `answer`.
CHILDREN = {
  "devices": """import jax
answer = [{"platform": d.platform, "kind": d.device_kind,
           "memory": (d.memory_stats() or {}).get("bytes_limit")}
          for d in jax.devices()]""",
  "codecs": "from v2a_jax.media.codecs import codecs; answer = codecs()",
  "sandbox": """from v2a_jax import media
from v2a_jax.media import confine
answer = {"enforced": media.enforced(),
          "means": confine.describe(media.enforced())}""",
  "weights": "from v2a_jax.weights import registry; answer = registry.listing()",
}


def main(argv: list[str]) -> int:
  """Runs `v2a doctor`."""
  parser = parsing.Parser("v2a doctor", __doc__, ARGUMENTS, "v2a doctor --json")
  args = parser.parse(argv)
  state = examine()
  print(json.dumps(state, indent=2) if args.json else describe(state))
  return 1 if args.strict and state["missing"] else 0


def examine() -> dict[str, Any]:
  """Returns everything that is known about this machine, ready for JSON."""
  packages = {name: version(name) for name in (*NEEDED, *OPTIONAL)}
  folder = pathlib.Path.cwd()
  free = shutil.disk_usage(folder).free / 1e9
  return {
    "v2a_jax": v2a_jax.__version__,
    "python": platform.python_version(),
    "platform": platform.platform(),
    "cores": os.cpu_count(),
    "memory_gb": memory_gb(),
    "disk": {"folder": str(folder), "free_gb": round(free, 1)},
    "packages": packages,
    "missing": [name for name in NEEDED if packages[name] is None],
    "bundles": bundles(),
    **{name: ask(code) for name, code in CHILDREN.items()},
  }


def describe(state: dict[str, Any]) -> str:
  """Formats what `examine` returns as lines for a person."""
  disk = state["disk"]
  enough = "" if disk["free_gb"] >= FREE_GB else f", {FREE_GB} GB are needed"
  lines = [
    f"v2a_jax    {state['v2a_jax']}",
    f"python     {state['python']} on {state['platform']}",
    f"machine    {state['cores']} cores, {state['memory_gb']} GB of memory",
    f"disk       {disk['free_gb']} GB free in {disk['folder']}{enough}",
    f"devices    {_known(state['devices'], _devices)}",
    f"codecs     {_known(state['codecs'], _codecs)}",
    f"sandbox    {_known(state['sandbox'], lambda found: found['means'])}",
    f"bundled    {', '.join(state['bundles']) or 'no trained weights'}",
    f"weights    {_known(state['weights'], _weights)}",
  ]
  for name, value in state["packages"].items():
    if value:
      lines.append(f"package    {name} {value}")
    elif name in OPTIONAL:
      lines.append(f"absent     {name} (optional: {OPTIONAL[name]})")
    else:
      lines.append(f"MISSING    {name}")
  if state["missing"]:
    lines.append(f"next       {install_line()}")
  else:
    lines.append("all needed packages are installed")
  return "\n".join(lines)


def _known(answer: Any, show: Callable[[Any], str]) -> str:
  return f"unknown: {answer['error']}" if "error" in answer else show(answer)


def _devices(devices: list[dict]) -> str:
  kinds = Counter(f"{d['platform']} ({d['kind']})" for d in devices)
  return ", ".join(f"{count} x {kind}" for kind, count in kinds.items())


def _codecs(codecs: dict[str, list[str]]) -> str:
  return "; ".join(f"{kind} {' '.join(codecs[kind])}" for kind in codecs)


def _weights(rows: list[dict]) -> str:
  here = [f"{r['name']} {r['state']} at {r['path']}" for r in rows if r["path"]]
  missing = ", ".join(row["name"] for row in rows if not row["path"])
  if missing:
    here.append(f"missing {missing} (v2a weights fetch NAME)")
  return "; ".join(here)


def version(package: str) -> str | None:
  """Returns the version of an installed package; None if it is missing."""
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None


def install_line() -> str:
  """Returns the command that installs missing packages in versions that fit."""
  try:
    declared = importlib.metadata.requires("v2a_jax") or []
  except importlib.metadata.PackageNotFoundError:  # Run from its sources.
    return "pip install -e '.[eval]' -c constraints.txt"
  plain = [text for text in declared if "extra ==" not in text]
  return "pip install " + " ".join(f"'{text}'" for text in plain)


def memory_gb() -> float | None:
  """Returns the machine's memory in GB; None where it is unknown."""
  try:
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  except (ValueError, OSError, AttributeError):  # Not on this system.
    return None
  return round(size / 1e9, 1)


def bundles() -> list[str]:
  """Lists the trained weights that ship with the package."""
  assets = ROOT / "v2a_jax" / "assets"
  return sorted(p.parent.name for p in assets.glob("*/weights.safetensors"))


def ask(code: str) -> Any:
  """Returns the `answer` of a child process, or `{"error": why not}`."""
  code += "\nimport json; print('\\n' + json.dumps(answer))"
  env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
  env["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(ROOT), env.get("PYTHONPATH")])
  )
  try:
    child = subprocess.run(
      [sys.executable, "-c", code],
      capture_output=True,
      text=True,
      timeout=CHILD_SECONDS,
      env=env,
    )
  except subprocess.TimeoutExpired:
    return {"error": f"no answer in {CHILD_SECONDS} s; is a device held?"}
  if child.returncode == 0:
    return json.loads(child.stdout.splitlines()[-1])
  last = child.stderr.strip().splitlines() or [f"status {child.returncode}"]
  return {"error": last[-1]}
