"""A published prompt encoder, from its folder through a run to a bundle."""

import io
import json
import shutil

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sentencepiece

from configs import diffusion_tiny
from data_pipelines.schema import DataError
from tests import tiny
from v2a_jax.experiment import export
from v2a_jax.experiment import load as load_lib
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.experiment.sections import ConfigError
from v2a_jax.experiment.workdir import open_experiment
from v2a_jax.pretrained import t5
from v2a_jax.sampling.windows import Windows
from v2a_jax.soundtrack.request import Request
from v2a_jax.soundtrack.tracker import Soundtracker
from v2a_jax.training.checkpoint import Checkpoints
from v2a_jax.training.state import make_init, start_from
from v2a_jax.weights import bundle, names
from v2a_jax.weights.registry import MissingWeightsError

WORDS = ["a dog barks", "rain on a roof", "a door shuts"]
PLACE = ("conditioner", "prompt", "encoder")


def t5_tokenizer() -> bytes:
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(WORDS), model_writer=model, vocab_size=60,
    hard_vocab_limit=False, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
    minloglevel=2,
  )  # fmt: skip
  return model.getvalue()


def clap_tokenizer() -> str:
  """As RoBERTa's: byte pairs between <s> and </s>, no merges."""
  tokenizers = pytest.importorskip("tokenizers")
  marks = ["<s>", "<pad>", "</s>", "<unk>"]
  letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
  vocab = {token: i for i, token in enumerate(marks + letters)}
  model = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, []))
  model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel()
  model.post_processor = tokenizers.processors.RobertaProcessing(
    ("</s>", 2), ("<s>", 0)
  )
  model.enable_padding(length=64)  # as some are published
  return model.to_str()


@pytest.fixture(scope="module")
def published(tmp_path_factory):
  """Folders of a T5 and a CLAP, and the networks that wrote them."""
  torch = pytest.importorskip("torch", reason="writes the folders")
  transformers = pytest.importorskip("transformers")
  torch.manual_seed(0)
  folder = tmp_path_factory.mktemp("published")
  t5 = transformers.T5EncoderModel(
    transformers.T5Config(
      vocab_size=96, d_model=24, d_kv=5, d_ff=40, num_layers=2, num_heads=4
    )
  )
  clap = transformers.ClapTextModelWithProjection(
    transformers.ClapTextConfig(
      vocab_size=300, hidden_size=24, intermediate_size=40,
      num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=40,
      projection_dim=10,
    )
  )  # fmt: skip
  for name, model in {"t5": t5, "clap": clap}.items():
    model.eval().save_pretrained(folder / name)
  (folder / "t5" / "spiece.model").write_bytes(t5_tokenizer())
  (folder / "clap" / "tokenizer.json").write_text(clap_tokenizer())
  return folder, {"t5": t5, "clap": clap}


def settings(folder, name):
  config = diffusion_tiny.get_config()
  config.data.update(seconds=1.0, fps=5.0, frame_size=16, prompt_length=16)
  config.data.tokenizer = str(bundle.find("diffusion_tiny"))
  file = {"t5": "spiece.model", "clap": "tokenizer.json"}[name]
  config.data.prompt_tokenizer = str(folder / name / file)
  config.model.update(width=16, num_heads=2, joint_depth=1, depth=1)
  config.model.conditioner.update(spatial_width=8, temporal_depth=1)
  config.eval_every = 0
  encoder = dict(name=name, path=str(folder / name))
  config.model.conditioner.prompt_encoder = encoder
  return config


def start(experiment, run, mesh):
  """Saves a checkpoint of the first weights, fresh ones replaced by noise."""
  init = make_init(experiment.make_model, optax.identity(), seed=0, ema=False)
  rng = np.random.default_rng(0)
  noise = lambda x: jnp.asarray(0.1 * rng.normal(size=x.shape), x.dtype)
  state = jax.tree.map(noise, jax.eval_shape(init))
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  state = jax.device_put(state, place)
  with jax.set_mesh(mesh):  # As the loop reads them.
    state = start_from(state, experiment.first_weights())
  checkpoints = Checkpoints(run)
  meta = {"train_seconds": 1.0, "clips_seen": 8}
  checkpoints.save(1, state, data={}, meta=meta)
  checkpoints.close()


def expected(model, project, norm, ids):
  """The trained map in float64 after the network of `transformers`."""
  import torch

  with torch.no_grad():
    x = model(torch.tensor(ids[None]).long()).last_hidden_state[0].numpy()
  x = x.astype(np.float64) @ project.kernel[...] + project.bias[...]
  rms = np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
  return x / rms * norm.scale[...]


@pytest.mark.parametrize("name", ["t5", "clap"])
def test_from_a_folder_to_a_bundle_that_needs_no_folder(
  published, mesh, name, tmp_path
):
  folder, models = published
  shutil.copytree(folder / name, tmp_path / name)
  config, run = settings(tmp_path, name), tmp_path / "run"
  experiment = open_experiment(config, run)
  start(experiment, run, mesh)
  shutil.rmtree(tmp_path / name)
  # Continued training, evaluation and generation read the run alone.
  config.data.prompt_tokenizer = str(run / bundle.PROMPT_TOKENIZER)
  open_experiment(config, run)
  export.export(run, tmp_path / "out", dtype="float32")
  shutil.rmtree(run)
  model = load_lib.load(tmp_path / "out").model
  tracker = Soundtracker.load(tmp_path / "out")
  picture = tiny.picture(fps=5.0, size=16)
  request = Request(prompt="a dog barks", negative_prompt="rain")
  cond = tracker.encoder.conditions(
    picture, Windows(4, 4), request, [request.prompt]
  )
  (ids,), (mask,) = cond.prompt, cond.prompt_mask
  ids = ids[mask]
  assert ids[-1] == {"t5": 1, "clap": 2}[name]
  encoder = model.conditioner.prompt
  got = np.asarray(encoder(cond.prompt, cond.prompt_mask))[0][mask]
  want = expected(models[name], encoder.project, encoder.norm, ids)
  np.testing.assert_allclose(got, want, rtol=0, atol=1e-4)
  negative, negative_mask = tracker.encoder.negative(request, 2)
  assert negative.shape == negative_mask.shape == (2, 16)
  assert negative[0][negative_mask[0]][-1] == ids[-1]
  silent = tracker.encoder.conditions(picture, Windows(4, 4), Request(), [""])
  assert not silent.prompt_mask.any()


def test_the_encoder_is_kept_from_training_and_adaptation(published):
  folder, _ = published
  config = settings(folder, "t5")
  encoder = names.flatten(nnx.state(t5.load(folder / "t5")))
  for rank in (2, 0):
    config.lora = dict(rank=rank, targets=("q", "out", "up", "qkv"))
    _, *parts = Experiment.from_config(config).abstract
    params, buffers = map(names.flatten, parts)
    assert not [name for name in params if name[:3] == PLACE]
    kept = {name[3:] for name in buffers if name[:3] == PLACE}
    assert kept == encoder.keys()
  assert ("conditioner", "prompt", "project", "kernel") in params


@pytest.mark.parametrize(
  "change,error,words",
  [
    ({"prompt_encoder.path": "no/such"}, MissingWeightsError, "no/such/config"),
    ({"prompt_encoder.name": "t6"}, ConfigError, "'t6' is not one of"),
    (
      {"prompt_tokenizer": ""},
      ConfigError,
      "data.prompt_tokenizer is em",
    ),
    ({"prompt_tokenizer": "no/such.model"}, DataError, "no/such.model"),
    (
      {"prompt_tokenizer": "big"},
      ConfigError,
      "the prompt encoder knows",
    ),
    (
      {"prompt_encoder.pat": "x"},
      ConfigError,
      "no such key, did you mean path",
    ),
  ],
)
def test_a_setting_that_does_not_fit_is_refused_in_one_line(
  published, tmp_path, change, error, words
):
  folder, _ = published
  config = settings(folder, "t5")
  config.unlock()
  for key, value in change.items():
    if value == "big":
      value = str(bundle.find("diffusion_tiny") / bundle.TOKENIZER)
    room = "data" if key == "prompt_tokenizer" else "model.conditioner"
    config.update_from_flattened_dict({f"{room}.{key}": value})
  with pytest.raises(error, match=words) as caught:
    open_experiment(config, tmp_path / "run")
  assert "\n" not in str(caught.value)


def test_a_missing_weights_file_is_named_when_it_is_read(published, tmp_path):
  folder, _ = published
  (tmp_path / "t5").mkdir()
  for name in ("config.json", "spiece.model"):
    shutil.copy(folder / "t5" / name, tmp_path / "t5")
  config = settings(tmp_path, "t5")
  experiment = open_experiment(config, tmp_path / "run")
  saved = json.loads((tmp_path / "run" / "config.json").read_text())
  sizes = saved["model"]["conditioner"]["prompt_encoder"]["sizes"]
  assert sizes["d_model"] == 24
  with pytest.raises(MissingWeightsError, match="model.safetensors"):
    experiment.first_weights()
