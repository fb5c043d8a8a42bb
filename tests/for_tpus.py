"""libtpu, with which tests compile for TPUs that are not here."""

import os

import pytest

from tests.launch.commands import ROOT

# `make test` installs it here, apart from the packages of the tests.
_FOLDER = ROOT / ".venv" / "plan"
# Environment of a process that finds it.
ENV = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(_FOLDER)])}
needed = pytest.mark.skipif(
  not (_FOLDER / "libtpu").is_dir(), reason="libtpu is not installed"
)
