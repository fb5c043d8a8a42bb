"""CLAP score against `transformers`, from a folder as it is published."""

import shutil

import numpy as np
import pytest
from safetensors import numpy as safetensors

from tests.launch.commands import refused, succeeds
from tests.pretrained import reference
from v2a_jax.evaluation import metrics
from v2a_jax.evaluation.clips import Clip
from v2a_jax.evaluation.metrics import base
from v2a_jax.evaluation.metrics.clap_score import ClapScore
from v2a_jax.hearing import clap, embeddings
from v2a_jax.hearing.clap import Clap
from v2a_jax.pretrained import clap_text
from v2a_jax.weights import catalog

RATE = 48_000
PROMPT = "a dog barks, then a bell rings"


@pytest.fixture(scope="module")
def transformers():
  pytest.importorskip("torch", reason="the reference needs torch")
  return pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def published(transformers, tmp_path_factory):
  """A small model with drawn weights, and its folder."""
  import tokenizers
  import torch

  folder = tmp_path_factory.mktemp("clap")
  config = transformers.ClapConfig(
    text_config=dict(
      vocab_size=300,
      hidden_size=24,
      intermediate_size=40,
      num_hidden_layers=2,
      num_attention_heads=4,
      max_position_embeddings=90,
      type_vocab_size=1,
    ),
    audio_config=dict(
      depths=[2, 2],
      num_attention_heads=[2, 2],
      patch_embeds_hidden_size=16,
      hidden_size=32,
    ),
    projection_dim=20,
  )
  model = transformers.ClapModel(config).eval()
  generator = torch.Generator().manual_seed(0)
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      gain = parameter.ndim == 1 and name.endswith("weight")
      noise = torch.randn(parameter.shape, generator=generator)
      parameter.copy_(gain + 0.2 * noise)
  model.save_pretrained(folder)
  pairs = tokenizers.ByteLevelBPETokenizer()
  special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
  pairs.train_from_iterator([PROMPT], vocab_size=300, special_tokens=special)
  pairs.post_processor = tokenizers.processors.RobertaProcessing(
    ("</s>", 2), ("<s>", 0)
  )
  pairs.save(str(folder / "tokenizer.json"))
  return model, folder


def sample(seconds, caption=PROMPT):
  sound = reference.sounds(RATE, seconds)[0][:, None]
  clip = Clip(id="clip", caption=caption, audio=sound, seconds=seconds)
  return base.Sample(clip=clip, waveform=sound, sample_rate=RATE, features={})


@pytest.fixture
def fetched(published, tmp_path, monkeypatch):
  """A folder as `v2a weights fetch clap:htsat_unfused` fills it."""
  import torch

  model, source = published
  folder = tmp_path / "weights"
  folder.mkdir()
  weights, tokenizer = (
    folder / catalog.WEIGHTS[name].file for name in catalog.SETS[clap.PUBLISHED]
  )
  torch.save(model.state_dict(), weights)
  shutil.copy(source / "tokenizer.json", tokenizer)
  monkeypatch.setenv("V2A_WEIGHTS", str(folder))
  monkeypatch.setenv("V2A_CACHE", str(tmp_path / "cache"))
  return folder


def features(transformers, sound):
  extract = transformers.ClapFeatureExtractor(
    frequency_min=50, truncation="rand_trunc", padding="repeatpad"
  )
  return extract(
    sound.astype(np.float64), sampling_rate=RATE, return_tensors="pt"
  )["input_features"]


def expected(transformers, model, folder, sound) -> float:
  import tokenizers
  import torch

  ids = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
  ids = torch.tensor([ids.encode(PROMPT).ids])
  with torch.no_grad():
    out = model(
      input_ids=ids,
      attention_mask=torch.ones_like(ids),
      input_features=features(transformers, sound),
    )
  unit = lambda x: x / x.norm(dim=-1, keepdim=True)
  return float((unit(out.audio_embeds) * unit(out.text_embeds)).sum())


@pytest.mark.parametrize("seconds", [10.0, 3.0])
def test_score_agrees_with_transformers(transformers, published, seconds):
  model, folder = published
  one = sample(seconds)
  want = expected(transformers, model, folder, one.waveform[:, 0])
  assert abs(want) > 1e-3
  got = ClapScore(str(folder)).get_state(one)
  assert got == pytest.approx(want, abs=1e-4)


def test_a_long_sound_is_heard_to_its_end(published):
  clap = Clap(published[1])
  (sound,) = reference.sounds(RATE, 12.0)[:1]
  whole = clap.sound(sound[:, None], RATE)
  halves = [
    clap.sound(part[:, None], RATE)
    for part in (sound[: 10 * RATE], sound[2 * RATE :])
  ]
  want = np.mean(halves, axis=0)
  np.testing.assert_allclose(whole, want / np.linalg.norm(want), atol=1e-5)


def test_clips_without_a_prompt_are_left_out(published):
  metric = ClapScore(str(published[1]))
  assert metric.judges(sample(1.0).clip)
  assert not metric.judges(sample(1.0, caption="").clip)
  assert metric.facts([])["CLAP"].startswith("clap")


def test_it_is_scored_where_a_folder_is_named(published):
  ids = lambda **options: [m.id for m in metrics.choose(**options)]
  assert "clap_score" not in ids()
  assert "clap_score" in ids(clap=str(published[1]))


def test_a_folder_that_is_no_clap_is_refused(published, tmp_path, capsys):
  args = ["eval", "--outputs", "a=none", "--reference", "none"]
  args += ["--clap", str(tmp_path), "-o", str(tmp_path / "out")]
  assert "tokenizer.json" in refused(capsys, *args)
  shutil.copy(published[1] / "tokenizer.json", tmp_path)
  safetensors.save_file({"x": np.zeros(1)}, tmp_path / "model.safetensors")
  assert "config.json" in refused(capsys, *args)


def test_what_is_fetched_scores_as_the_folder_does(
  published, fetched, monkeypatch
):
  sizes = clap_text.NETWORK.read_config(published[1])
  monkeypatch.setattr(clap_text, "ClapTextConfig", lambda: sizes)
  one = sample(3.0)
  want = Clap(published[1]).agreement(PROMPT, one.waveform, RATE)
  network = Clap(clap.PUBLISHED)
  assert network.agreement(PROMPT, one.waveform, RATE) == pytest.approx(want)
  assert network.name == clap.PUBLISHED and len(network.sha256) == 64


def test_sets_of_sounds_are_embedded_as_by_transformers(
  transformers, published, fetched
):
  import torch

  network = embeddings.get("clap")()
  sounds = [sample(seconds).waveform for seconds in (3.0, 16.0)]
  got = embeddings.embed(network, sounds, sample_rate=RATE)
  np.testing.assert_array_equal(got.clips, [0, 1, 1])
  # Of 16 s it hears the first ten and the ten from 5 s on.
  heard = [sounds[0], sounds[1][: 10 * RATE], sounds[1][5 * RATE : 15 * RATE]]
  for vector, sound in zip(got.vectors, heard):
    with torch.no_grad():
      want = published[0].get_audio_features(
        input_features=features(transformers, sound[:, 0])
      )
    want = np.asarray(getattr(want, "pooler_output", want))[0]
    np.testing.assert_allclose(vector, want / np.linalg.norm(want), atol=1e-4)
  assert {m.id for m in metrics.choose(["clap"])} >= {"fad_clap", "kad_clap"}


def test_it_is_listed_and_converted(fetched, capsys):
  listed = succeeds(capsys, "weights", "list")
  assert f"clap: found {fetched}" in listed and "Apache-2.0" in listed
  assert f"{clap.PUBLISHED}: complete" in listed
  path = succeeds(capsys, "weights", "convert", "clap")
  assert path.strip().endswith("clap_htsat_unfused.safetensors")
