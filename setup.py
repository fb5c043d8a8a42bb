"""Packaging of v2a_jax; tool settings stand in pyproject.toml.

`constraints.txt` holds the versions that the tests ran with:
`pip install -e '.[eval,dev]' -c constraints.txt`.
"""

import pathlib
import re

from setuptools import find_namespace_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(
  r'__version__ = "([^"]+)"', (ROOT / "v2a_jax/__init__.py").read_text()
).group(1)
README = ROOT / "README.md"

CORE = [
  "absl-py",
  "array_record>=0.8",
  "av>=18,<19",
  "etils[epath]>=1.15",
  "flax>=0.12.8,<0.13",
  "fsspec",
  "grain>=0.2.18",
  # With jaxlib 0.11.2 a step of the codec never ends on a CPU of two cores.
  "jax>=0.10.2,<0.11",
  "jinja2",
  "markupsafe",
  "ml-collections>=1.1",
  "numpy>=2",
  "optax>=0.2.8",
  "orbax-checkpoint>=0.12.8",
  "pyloudnorm>=0.1.1",
  "safetensors",
  "scipy",
  "sentencepiece>=0.2.1",
  "soundfile>=0.13",
  "soxr",
  "tensorflow-datasets>=4.9.10",
  "threadpoolctl",
  "wandb>=0.20",
  # Newer majors keep apache-beam from being installed beside this package.
  "protobuf<7",
  "py3langid",
  "pyarrow<26",
]

EXTRAS = {
  "tpu": ["jax[tpu]"],
  # Compiles for TPU pods on a machine without one: v2a plan.
  "plan": ["libtpu"],
  "gpu": ["jax[cuda12]"],
  "eval": [
    "krippendorff",
    "librosa",
    "mir_eval",
    "opencv-python-headless",
    "pocketsphinx>=5",
    "rapidfuzz",
    "scikit-learn",
  ],
  # The page and API of v2a serve.
  "ui": [
    "anyio>=4.5",
    "fastapi>=0.130",
    "markdown-it-py>=3",
    "pydantic>=2",
    "starlette",
    "uvicorn>=0.40",
  ],
  # Timelines of OpenTimelineIO, and signed provenance.
  "delivery": ["c2pa-python>=0.38", "cryptography>=42", "opentimelineio>=0.18"],
  # Data sets, workdirs and bundles on s3:// and gs://: docs/storage.md.
  "cloud": ["gcsfs", "s3fs"],
  # Writes and shows event files: config.tensorboard, v2a metrics.
  "tensorboard": ["tensorboard>=2.20", "tensorboardX>=2.6.5"],
  # Builds data sets on many machines: docs/data_at_scale.md.
  "beam": ["apache-beam>=2.77"],
  # What the labellers `whisper` and `captioner` run (captioner: and torch).
  "labellers": ["faster-whisper", "pillow", "transformers>=5.23"],
  # Reads the tokenizer.json of a published text encoder such as CLAP's.
  "prompts": ["tokenizers>=0.20"],
  "dev": [
    "apache-beam>=2.77",
    # Looks for what keeps people from using a page.
    "axe-core-python",
    "build",
    # Object stores on this machine, and what they need to serve.
    "flask",
    "flask-cors",
    "gcp-storage-emulator",
    "gcsfs",
    # Serves the page under test, reads timelines and signatures.
    "c2pa-python",
    "cryptography",
    "fastapi",
    "opentimelineio",
    "uvicorn",
    # Reads the Croissant metadata of a data set.
    "mlcroissant",
    # Renders report.md as its readers do, and the page's texts.
    "markdown-it-py",
    "moto[s3]",
    "s3fs",
    "packaging",
    "pytest",
    "pytest-xdist",
    "pyyaml",
    "ruff",
    "selenium",
    "tensorboard>=2.20",
    "tensorboardX>=2.6.5",
  ],
  # References that ports are compared with, the reader of `.pt` files, and PESQ,
  # which judges marked speech; nothing that runs imports it. Tests that need it
  # skip where it is absent.
  "parity": [
    "ai-edge-litert",
    "pesq",
    "pillow",
    "torch>=2.13",
    "transformers>=5.23",
  ],
}

setup(
  name="v2a_jax",
  version=VERSION,
  description="Train, judge and use video-to-audio models in JAX",
  long_description=README.read_text() if README.exists() else "",
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  license_files=["LICENSE"],
  python_requires=">=3.11",
  packages=find_namespace_packages(
    include=["v2a_jax*", "data_pipelines*", "launch*", "configs*"],
    exclude=["*.assets*", "*.templates*"],
  ),
  package_data={
    "v2a_jax": ["assets/**"],
    "v2a_jax.evaluation.listening": ["templates/**"],
    "v2a_jax.evaluation.report": ["templates/**"],
    "v2a_jax.service": ["page/**"],
    "data_pipelines": ["templates/**"],
    "launch": ["templates/*", "README.md"],
    "": ["py.typed"],
  },
  install_requires=CORE,
  extras_require=EXTRAS,
  entry_points={"console_scripts": ["v2a = launch.cli:main"]},
)
