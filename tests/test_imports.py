"""The direction of imports, read from the source: docs/architecture.md."""

import ast
from collections.abc import Iterator
import functools
import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
OURS = ("configs", "data_pipelines", "launch", "v2a_jax")

# What of ours each room may import besides itself. Rooms are the folders of
# v2a_jax, its one loose module, and the three packages beside it. `basics` is
# open to all.
MAY = {
  "configs": "",
  "v2a_jax": "soundtrack",  # The package's front: Soundtracker.
  "basics": "",
  "batch": "",
  "media": "",
  "watermark": "",
  "weights": "",
  "parallel": "",
  "data_pipelines": "media",
  "models": "parallel",
  "pretrained": "batch models weights",
  "hearing": "data_pipelines pretrained weights",
  "codec": "batch parallel weights",
  "conditioning": "batch models parallel pretrained",
  # Programs of their own: nothing imports them.
  "labellers": "media pretrained sync",
  # The judge conditions nothing that it may judge; takes are ranked on request.
  "sync": "batch pretrained weights",
  "objectives": "batch codec models parallel pretrained sync",
  "sampling": "batch models objectives",
  "training": "objectives parallel weights batch",
  "experiment": "batch codec conditioning data_pipelines models objectives"
  " parallel pretrained sampling sync training weights",
  "soundtrack": "v2a_jax batch codec data_pipelines experiment hearing media"
  " sampling sync watermark weights",
  "service": "v2a_jax media soundtrack watermark",
  "evaluation": "batch data_pipelines hearing media pretrained soundtrack sync"
  " v2a_jax weights",
  "launch": "configs data_pipelines media pretrained watermark weights parallel"
  " training experiment soundtrack service evaluation v2a_jax",
}
# One door each: (module, what alone may import it).
DOORS = [
  ("av", "v2a_jax/media/"),
  ("orbax", "v2a_jax/training/checkpoint"),
  ("wandb", "v2a_jax/training/writers.py"),
  ("tensorboardX", "v2a_jax/training/event_files.py"),
  ("tensorflow_datasets", "data_pipelines/"),
  ("array_record", "data_pipelines/"),
  ("grain", "data_pipelines/"),
  ("tokenizers", "data_pipelines/tokenizer.py"),
]
NEVER = ("torch", "tensorflow", "torchaudio", "torchvision", "keras")


def sources() -> list[pathlib.Path]:
  return sorted(file for room in OURS for file in (ROOT / room).rglob("*.py"))


@functools.cache
def imports(file: pathlib.Path) -> tuple[str, ...]:
  """Every module that a file imports, at any depth, as absolute names."""
  names = []
  for node in ast.walk(ast.parse(file.read_text())):
    if isinstance(node, ast.Import):
      names += [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      base = node.module or ""
      if node.level:
        package = file.relative_to(ROOT).with_suffix("").parts[: -node.level]
        base = ".".join([*package, *filter(None, [node.module])])
      names += [f"{base}.{alias.name}" for alias in node.names]
  return tuple(names)


@functools.cache
def module(file: pathlib.Path) -> str:
  path = file.relative_to(ROOT).with_suffix("")
  return ".".join(part for part in path.parts if part != "__init__")


def room(name: str) -> str:
  """`v2a_jax.codec.stft.Loss` -> `codec`; `v2a_jax.__version__` -> `v2a_jax`."""
  top, *rest = name.split(".")
  inside = top == "v2a_jax" and rest and (ROOT / "v2a_jax" / rest[0])
  if inside and (inside.is_dir() or inside.with_suffix(".py").is_file()):
    return rest[0]
  return top


def crossings() -> Iterator[tuple[str, str, str]]:
  """(file, its room, what of ours it imports from another room)."""
  for file in sources():
    here = room(module(file))
    for name in imports(file):
      if name.split(".")[0] in OURS and room(name) != here:
        yield str(file.relative_to(ROOT)), here, name


def test_every_room_has_a_rule_and_every_rule_a_room():
  assert {room(module(file)) for file in sources()} == MAY.keys()


def test_batch_is_the_only_loose_module():
  loose = {file.stem for file in (ROOT / "v2a_jax").glob("*.py")}
  assert loose == {"__init__", "batch"}


def test_imports_go_one_way():
  wrong = [
    f"{file} ({here}) imports {name}"
    for file, here, name in crossings()
    if room(name) not in {"basics", *MAY[here].split()}
  ]
  assert not wrong, "\n".join(wrong)


def circles(edges: dict[str, set[str]]) -> list[str]:
  """Nodes that can reach themselves."""

  def reach(start):
    seen, todo = set(), [*edges.get(start, ())]
    while todo:
      node = todo.pop()
      if node not in seen:
        seen.add(node)
        todo += edges.get(node, ())
    return seen

  return sorted(node for node in edges if node in reach(node))


def test_no_room_and_no_module_is_in_a_circle():
  """Lazy imports counted, but for the package's own front door."""
  modules = {module(file): file for file in sources()}
  rooms: dict[str, set[str]] = {}
  files: dict[str, set[str]] = {}
  for name, file in modules.items():
    if name == "v2a_jax":
      continue
    for target in imports(file):
      while target and target not in modules:
        target = target.rpartition(".")[0]
      if target in ("", "v2a_jax") or target == name:
        continue
      # A package's own __init__ names its modules; they may name one another.
      if not target.startswith(f"{name}."):
        files.setdefault(name, set()).add(target)
      if room(target) != room(name):
        rooms.setdefault(room(name), set()).add(room(target))
  assert circles(rooms) == []
  assert circles(files) == []


def test_nothing_imports_launch():
  wrong = [file for file, _, name in crossings() if room(name) == "launch"]
  assert not wrong


def test_only_the_experiment_room_and_the_commands_read_configs():
  """Functions that take a ConfigDict, or a parameter that is one."""
  wrong = [
    str(file.relative_to(ROOT))
    for file in sources()
    if any("ml_collections" in name for name in imports(file))
    and room(module(file)) not in ("configs", "launch")
  ]
  assert not wrong


def test_data_pipelines_and_media_never_import_jax():
  for file in sources():
    if room(module(file)) in ("data_pipelines", "media", "basics", "configs"):
      tops = {name.split(".")[0] for name in imports(file)}
      assert not tops & {"jax", "jaxlib", "flax", "optax"}, file


@pytest.mark.parametrize("library,door", DOORS)
def test_a_library_has_one_door(library, door):
  wrong = [
    str(file.relative_to(ROOT))
    for file in sources()
    if any(name.split(".")[0] == library for name in imports(file))
    and not str(file.relative_to(ROOT)).startswith(door)
  ]
  assert not wrong, f"{library} is imported only in {door}"


def test_torch_and_tensorflow_are_never_imported():
  for file in sources():
    tops = {name.split(".")[0] for name in imports(file)}
    assert not tops & set(NEVER), file


def test_every_package_that_is_imported_is_declared():
  """Import names equal distribution names here, but for these few."""
  distributions = {
    "PIL": "pillow",
    "absl": "absl-py",
    "apache_beam": "apache-beam",
    "c2pa": "c2pa-python",
    "cv2": "opencv-python-headless",
    "orbax": "orbax-checkpoint",
    "google": "protobuf",
    "markdown_it": "markdown-it-py",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
  }
  declared = {
    normalised(re.match(r"[A-Za-z0-9_.-]+", name)[0])
    for name in re.findall(r'"([^"]+)"', requirements())
  }
  used = {name.split(".")[0] for file in sources() for name in imports(file)}
  used -= set(OURS) | set(sys.stdlib_module_names)
  needed = {normalised(distributions.get(name, name)) for name in used}
  # jaxlib and ml_dtypes are parts of jax.
  assert needed - declared - {"jaxlib", "ml-dtypes"} == set()


def test_test_files_have_names_of_their_own():
  """pytest imports them by their names alone."""
  names = [file.name for file in (ROOT / "tests").rglob("test_*.py")]
  assert not [name for name in names if names.count(name) > 1]


def requirements() -> str:
  text = (ROOT / "setup.py").read_text()
  return text[text.index("CORE =") : text.index("setup(")]


def normalised(name: str) -> str:
  return name.lower().replace("_", "-")
