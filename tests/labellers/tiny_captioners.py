"""The captioner with models of its own kinds, of a few thousand random numbers.

  python tests/labellers/tiny_captioners.py picture|sound FOLDER

writes a BLIP or a Whisper to the folder and serves with it.
"""

import sys

import torch
import transformers

from v2a_jax.labellers import captioner

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] a dog cat runs barks red ball here"
# Weights so large that what is said depends on what is seen or heard.
SPREAD = 1.5


def blip(folder: str) -> None:
  words = {word: i for i, word in enumerate(WORDS.split())}
  processor = transformers.BlipProcessor(
    transformers.BlipImageProcessor(size={"height": 32, "width": 32}),
    transformers.BertTokenizer(vocab=words),
  )
  sizes = dict(
    hidden_size=16,
    intermediate_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    projection_dim=16,
    initializer_range=SPREAD,
  )
  text = dict(
    **sizes,
    vocab_size=len(processor.tokenizer),
    encoder_hidden_size=16,
    max_position_embeddings=512,
    bos_token_id=words["[CLS]"],
    eos_token_id=words["[SEP]"],
    sep_token_id=words["[SEP]"],
    pad_token_id=words["[PAD]"],
  )
  config = transformers.BlipConfig(
    text_config=text,
    vision_config=dict(**sizes, image_size=32, patch_size=16),
    image_text_hidden_size=16,
  )
  model = transformers.BlipForConditionalGeneration(config)
  model.generation_config.max_length = 12
  model.save_pretrained(folder)
  processor.save_pretrained(folder)


def whisper(folder: str) -> None:
  letters = {letter: i for i, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}
  tokenizer = transformers.WhisperTokenizer(vocab=letters, merges=[])
  special = ["<|startoftranscript|>", "<|en|>", "<|notimestamps|>"]
  tokenizer.add_special_tokens({"additional_special_tokens": special})
  start, _, untimed = tokenizer.convert_tokens_to_ids(special)
  end = tokenizer.eos_token_id
  config = transformers.WhisperConfig(
    vocab_size=len(tokenizer),
    encoder_layers=1,
    decoder_layers=1,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
    encoder_ffn_dim=16,
    decoder_ffn_dim=16,
    d_model=16,
    max_target_positions=24,
    bos_token_id=end,
    eos_token_id=end,
    pad_token_id=end,
    decoder_start_token_id=start,
    begin_suppress_tokens=[end],
    init_std=SPREAD,
  )
  model = transformers.WhisperForConditionalGeneration(config)
  model.generation_config.max_length = 12
  model.generation_config.no_timestamps_token_id = untimed
  model.save_pretrained(folder)
  transformers.WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
  tokenizer.save_pretrained(folder)


if __name__ == "__main__":
  of, place = sys.argv[1:]
  torch.manual_seed(0)
  {"picture": blip, "sound": whisper}[of](place)
  sys.argv = ["captioner", "--model", place, "--of", of]
  captioner.main()
