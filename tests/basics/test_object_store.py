"""The servers themselves, from this process and from a child."""

import subprocess
import sys

from etils import epath


def test_a_child_process_reads_what_this_process_wrote(store_url):
  path = epath.Path(store_url) / "folder" / "a.txt"
  path.write_text("hello")
  code = (
    "import sys; from etils import epath; path = epath.Path(sys.argv[1]);"
    " print(path.read_text(), *(p.name for p in path.parent.iterdir()))"
  )
  child = subprocess.run(
    [sys.executable, "-c", code, str(path)],
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert child.stdout == "hello a.txt\n", child.stderr
