"""What the watermark is: a grid, a lattice and a key.

The signal at 16 kHz is cut into patches: 32 bands of 0.2 to 7 kHz times
60 ms. Two patches in a row make a *slot*; 16 slots make a *tile* of 1.92 s,
which repeats. With `E` a patch's energy, a slot holds two kinds of *chip*,

    d[b] = 1/2 log(E[b, first] / E[b, second])                one for a band
    f[b] = 1/2 log(E[2b, both] / E[2b + 1, both])        one for two bands

so 48 chips a slot and 768 a tile. A chip does not change with the level, and
`d` does not change with any filter that is slower than a slot.

The key gives every chip `k` of the tile a phase `phi[k]`, uniform on the
circle. Embedding moves each chip towards the nearest point of the lattice

    { x : 2 pi x / STEP = phi[k] + pi bit[k]  (mod 2 pi) }

which is quantization index modulation with distortion compensation (Chen and
Wornell 2001, https://doi.org/10.1109/18.923725): unlike an added spread
spectrum signal (Cox et al. 1997; Kirovski and Malvar 2003,
https://doi.org/10.1109/TSP.2003.809384) it does not have to be louder than
the randomness of its host. `bit` is zero for three chips in four, which serve
detection, and a code word of the payload for the others.

Detection sums the resultants `C[k] = sum_r w exp(2 pi i x[k, r] / STEP)` over
the tiles `r`, with weights `w` that see the audio and not the key, into

    z = sum_k Re(C[k] exp(-i phi[k])) / sqrt(1/2 sum_k |C[k]|^2)

For audio that knows nothing of the key, `z` has mean 0 and variance 1, and
since `E exp(a cos phi) = I_0(a) <= exp(a^2 / 4)`, Chernoff's bound gives
`P(z >= t) <= exp(-t^2 / 2)` exactly, whatever the audio is.
"""

import functools
import hashlib
import os

import numpy as np

SAMPLE_RATE = 16_000  # Hz, the rate at which the mark is defined.
BANDS = 32
LOWEST, HIGHEST = 200.0, 7000.0  # Hz
NARROWEST = 120.0  # Hz; wider bands are 0.12 of their frequency.
PATCH = 960  # samples, 60 ms
SLOTS = 16
WINDOW = 512  # samples, 32 ms: the frames whose power is summed.
STEP = 0.30  # nepers: the lattice's period, 2.6 dB.
COMPENSATION = 0.7  # how far of the way to the lattice a chip is moved.
CHIPS = BANDS + BANDS // 2  # in a slot
PAYLOAD_BITS = 16

PUBLIC_KEY = b"v2a_jax public watermark key 1"


def resolve_key(key: bytes | str | None = None) -> bytes:
  """Returns the key as bytes.

  Args:
    key: the key itself; None takes `V2A_WATERMARK_KEY` from the environment
      and, without it, the published key, with which anyone can detect.

  Raises:
    ValueError: the key is empty.
  """
  if key is None:
    key = os.environ.get("V2A_WATERMARK_KEY") or PUBLIC_KEY
  key = key.encode() if isinstance(key, str) else bytes(key)
  if not key:
    raise ValueError(
      "watermark key: b'' is empty; give a key, or None for the published one"
    )
  return key


def stream(key: bytes, purpose: str, n: int) -> np.ndarray:
  """`n` pseudo-random uint32 of the key; the same on every machine."""
  seed = hashlib.sha256(key).digest() + purpose.encode()
  return np.frombuffer(hashlib.shake_256(seed).digest(4 * n), "<u4")


@functools.lru_cache(maxsize=8)
def phases(key: bytes) -> np.ndarray:
  """The chips' phases `phi`, radians [chips, slots]."""
  words = stream(key, "phase", CHIPS * SLOTS)
  return (words * (2 * np.pi / 2**32)).reshape(CHIPS, SLOTS)


def carries_payload() -> np.ndarray:
  """True for the chips, one in four, that carry bits [chips, slots]."""
  return np.add.outer(np.arange(CHIPS), np.arange(SLOTS)) % 4 == 0


@functools.lru_cache(maxsize=2)
def code_words(key: bytes) -> np.ndarray:
  """The payloads' code words, int8 in {0, 1} [2^16, payload chips].

  A random linear code; a linear code's words are as far apart as its
  lightest word is heavy.
  """
  n = int(carries_payload().sum())
  generator = stream(key, "code", PAYLOAD_BITS * n).reshape(-1, n) & 1
  payloads = np.arange(2**PAYLOAD_BITS)[:, None]
  bits = (payloads >> np.arange(PAYLOAD_BITS)) & 1
  # float32 is exact for these sums and goes through the fast product.
  words = bits.astype(np.float32) @ generator.astype(np.float32)
  return (words.astype(np.int32) & 1).astype(np.int8)


def bits(key: bytes, payload: int) -> np.ndarray:
  """The lattice's half steps, in {0, 1} [chips, slots].

  Raises:
    ValueError: the payload does not fit 16 bits.
  """
  if not 0 <= payload < 2**PAYLOAD_BITS:
    raise ValueError(
      f"watermark payload: {payload} is not in 0..{2**PAYLOAD_BITS - 1}"
    )
  out = np.zeros((CHIPS, SLOTS), np.int8)
  if payload:
    out[carries_payload()] = code_words(key)[payload]
  return out


@functools.cache
def band_edges() -> np.ndarray:
  """The bands' edges in Hz [BANDS + 1]: even, then a constant quality."""
  hz = np.linspace(LOWEST, HIGHEST, 8001)
  density = 1 / np.maximum(NARROWEST, 0.12 * hz)
  count = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
  return np.interp(np.linspace(0, count[-1], BANDS + 1), count, hz)


def band_matrix(speed: float = 1.0) -> np.ndarray:
  """Which part of each frequency bin lies in each band [BANDS, bins].

  Args:
    speed: how much faster than the original the audio is played; the bands
      move up with it.
  """
  width = SAMPLE_RATE / WINDOW
  centre = np.arange(WINDOW // 2 + 1) * width
  edges = band_edges()[:, None] * speed
  overlap = np.minimum(centre + width / 2, edges[1:]) - np.maximum(
    centre - width / 2, edges[:-1]
  )
  return np.clip(overlap, 0, None) / width
