"""Definition of the watermark: time-frequency grid, lattice and key.

The audio at 16 kHz is divided into patches of 60 ms in each of 32 bands from
0.2 to 7 kHz. Two consecutive patches are a *slot*; 16 slots are a *tile* of
1.92 s, which repeats. With `E` the energy of a patch, a slot has two kinds of
*chips*,

    d[b] = 1/2 log(E[b, first] / E[b, second])           one for each band
    f[b] = 1/2 log(E[2b, both] / E[2b + 1, both])        one for two bands

that is 48 chips per slot and 768 per tile. All chips are invariant to gain, `d`
also to equalisation that is constant over a slot.

The key gives every chip `k` of the tile a phase `phi[k]`, uniform on the
circle. Embedding moves each chip towards the nearest point of the lattice

    { x : 2 pi x / STEP = phi[k] + pi bit[k]  (mod 2 pi) }

This is quantization index modulation with distortion compensation (Chen and
Wornell 2001, https://doi.org/10.1109/18.923725). Unlike an additive spread
spectrum signal (Cox et al. 1997; Kirovski and Malvar 2003,
https://doi.org/10.1109/TSP.2003.809384) it does not compete with the variance
of the host signal. `bit` is zero for three chips in four, which serve
detection; the others carry a code word of the payload.

Detection sums over the tiles `r` with weights `w` that depend on the audio but
not on the key, `C[k] = sum_r w exp(2 pi i x[k, r] / STEP)`, and scores

    z = sum_k Re(C[k] exp(-i phi[k])) / sqrt(1/2 sum_k |C[k]|^2)

For audio that is independent of the key, `z` has mean 0 and variance 1. Since
`E exp(a cos phi) = I_0(a) <= exp(a^2 / 4)`, Chernoff's bound
`P(z >= t) <= exp(-t^2 / 2)` holds for every such audio.
"""

import functools
import hashlib
import os

import numpy as np

SAMPLE_RATE = 16_000  # Hz, at which the watermark is defined
BANDS = 32
LOWEST, HIGHEST = 200.0, 7000.0  # Hz
NARROWEST = 120.0  # Hz; wider bands are 0.12 of their frequency
PATCH = 960  # samples, 60 ms
SLOTS = 16  # per tile
WINDOW = 512  # samples, 32 ms: length of the transform's frames
STEP = 0.30  # nepers, 2.6 dB: period of the lattice
COMPENSATION = 0.7  # fraction of the way to the lattice that a chip is moved
CHIPS = BANDS + BANDS // 2  # per slot
PAYLOAD_BITS = 16

PUBLIC_KEY = b"v2a_jax public watermark key 1"


def resolve_key(key: bytes | str | None = None) -> bytes:
  """Returns the key as bytes; raises ValueError if it is empty.

  None stands for the environment variable `V2A_WATERMARK_KEY` or, if that is
  unset, for the published key, with which anyone can detect the watermark.
  """
  if key is None:
    key = os.environ.get("V2A_WATERMARK_KEY") or PUBLIC_KEY
  key = key.encode() if isinstance(key, str) else bytes(key)
  if not key:
    raise ValueError(
      "watermark key: b'' is empty; give a key, or None for the published one"
    )
  return key


def key_digest(key: bytes | str | None = None) -> str:
  """Returns 8 hexadecimal digits that tell keys apart and give none away.

  Args:
    key: as `resolve_key` takes it.
  """
  secret = b"v2a_jax watermark key " + resolve_key(key)
  return hashlib.sha256(secret).hexdigest()[:8]


def keystream(key: bytes, purpose: str, n: int) -> np.ndarray:
  """Derives [n] pseudo-random uint32 from the key, equal on every machine."""
  seed = hashlib.sha256(key).digest() + purpose.encode()
  return np.frombuffer(hashlib.shake_256(seed).digest(4 * n), "<u4")


@functools.lru_cache(maxsize=8)
def phases(key: bytes) -> np.ndarray:
  """Returns the phases `phi` of the chips, radians [chips, slots]."""
  words = keystream(key, "phase", CHIPS * SLOTS)
  return (words * (2 * np.pi / 2**32)).reshape(CHIPS, SLOTS)


def carries_payload() -> np.ndarray:
  """Returns a mask of the payload chips, one in four; bool [chips, slots]."""
  return np.add.outer(np.arange(CHIPS), np.arange(SLOTS)) % 4 == 0


@functools.lru_cache(maxsize=2)
def code_words(key: bytes) -> np.ndarray:
  """Returns the code words of all payloads, int8 in {0, 1} [2^16, chips]."""
  # A random linear code: the least weight of a word is its minimum distance.
  n = int(carries_payload().sum())
  generator = keystream(key, "code", PAYLOAD_BITS * n).reshape(-1, n) & 1
  payloads = np.arange(2**PAYLOAD_BITS)[:, None]
  bits = (payloads >> np.arange(PAYLOAD_BITS)) & 1
  # float32 is exact for these sums and has a fast matrix product.
  words = bits.astype(np.float32) @ generator.astype(np.float32)
  return (words.astype(np.int32) & 1).astype(np.int8)


def bits(key: bytes, payload: int) -> np.ndarray:
  """Returns the bits that shift the lattice, int8 in {0, 1} [chips, slots]."""
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
  """Returns edges in Hz [BANDS + 1]: equal widths up to 1 kHz, then ratios."""
  hz = np.linspace(LOWEST, HIGHEST, 8001)
  density = 1 / np.maximum(NARROWEST, 0.12 * hz)
  count = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
  return np.interp(np.linspace(0, count[-1], BANDS + 1), count, hz)


def band_matrix(speed: float = 1.0) -> np.ndarray:
  """Returns the fraction of each bin in each band at `speed`, [BANDS, bins]."""
  width = SAMPLE_RATE / WINDOW
  centre = np.arange(WINDOW // 2 + 1) * width
  edges = band_edges()[:, None] * speed
  overlap = np.minimum(centre + width / 2, edges[1:]) - np.maximum(
    centre - width / 2, edges[:-1]
  )
  return np.clip(overlap, 0, None) / width
