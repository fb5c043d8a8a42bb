"""A tiny generator of MMAudio's kind with towers, and its bundle."""

from flax import nnx

from data_pipelines import tokenizer as tokenizer_lib
from tests import tiny
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.weights import bundle

SECONDS = 2.0
TEXT = dict(
  vocab_size=300,
  hidden_size=12,
  num_hidden_layers=1,
  num_attention_heads=2,
  intermediate_size=16,
  max_length=20,
)
CLIP = dict(
  family="clip",
  hidden_size=16,
  intermediate_size=16,
  num_hidden_layers=1,
  num_attention_heads=2,
  image_size=28,
  patch_size=14,
  projection_dim=10,
)
# Segments that overlap by half of their 16 frames, as in the published one.
SYNC = dict(
  hidden_size=8,
  num_hidden_layers=1,
  num_attention_heads=2,
  intermediate_size=16,
  image_size=32,
)


def clip_tokenizer() -> bytes:
  """As CLIP's: byte pairs between two marks, no merges."""
  import tokenizers

  marks = ["<|startoftext|>", "<|endoftext|>"]
  letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
  vocab = {token: i for i, token in enumerate(letters + marks)}
  model = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, []))
  model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel()
  model.post_processor = tokenizers.processors.TemplateProcessing(
    single="<|startoftext|> $A <|endoftext|>",
    special_tokens=[(mark, vocab[mark]) for mark in marks],
  )
  return model.to_str().encode()


def config(prompt_tokenizer, **changes):
  """A config; `changes` replace keys of its sections."""
  sections = {
    "name": "tiny",
    "codec": "patches:16000:512:1",
    "data": {
      "paths": ("data/mine",),
      "target": "latents",
      "seconds": SECONDS,
      "fps": 8.0,
      "frame_size": 16,
      "batch_size": 2,
      "prompt_length": 20,
      "transcript_length": 2,
      "prompt_tokenizer": str(prompt_tokenizer),
    },
    "model": {
      "name": "mmaudio",
      "width": 32,
      "num_heads": 2,
      "joint_depth": 2,
      "depth": 1,
      "conditioner": {
        "prompt_encoder": {"name": "open_clip", "sizes": TEXT},
        "clip": {"name": "open_clip", "sizes": CLIP},
        "sync": {"name": "synchformer", "sizes": SYNC},
        "clip_dim": 10,
        "sync_dim": 8,
        "text_dim": 12,
      },
    },
    "objective": {"name": "diffusion"},
    "sampler": {"name": "ode", "num_steps": 2, "guidance": {"joint": 2.0}},
  }
  for section, values in changes.items():
    sections[section] = sections.get(section, {}) | values
  return sections


def save(folder, **changes):
  """Writes a bundle of the tiny generator, with random weights."""
  path = folder / "clip_tokenizer.json"
  path.write_bytes(clip_tokenizer())
  experiment = Experiment.from_config(config(path, **changes))
  model = tiny.drawn(lambda: experiment.make_model(nnx.Rngs(0)))
  bundle.save(
    folder / "bundle",
    nnx.state(model),
    experiment.config,
    card="",
    tokenizer=tokenizer_lib.train(["a door shuts"], vocab_size=512),
    prompt_tokenizer=path.read_bytes(),
    dtype="float32",
  )
  return folder / "bundle"
