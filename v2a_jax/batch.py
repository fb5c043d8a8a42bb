"""Batches and conditions: the types that every room shares.

Every field that has a time axis carries times in seconds from the start of
the window, so no frame rate is assumed anywhere. A mask is True where
something is there; a condition whose mask is all False is absent.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

PRESENCE = ("speech", "music", "effects")
ABSENT, PRESENT, UNKNOWN = 0, 1, 2
CONDITIONS = ("video", "prompt", "transcript", "presence")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Conditioning:
  """Conditions of a soundtrack; every part is optional.

  Attributes:
    frames: uint8 [b n h w 3]; None where `features` are all that is read.
    frame_times: float32 [b n], seconds.
    frame_mask: bool [b n].
    prompt: int32 [b l], token ids of the caption or prompt; float32 [b l f],
      their features, for a model that has no encoder of them.
    prompt_mask: bool [b l].
    transcript: int32 [b s], token ids of the spoken words.
    transcript_times: float32 [b s], seconds at which each begins; a word's
      tokens share its time evenly.
    transcript_durations: float32 [b s], seconds.
    transcript_mask: bool [b s].
    transcript_timed: bool [b], whether these are known, or only spread.
    presence: int32 [b 3], flags of speech, music and effects (`PRESENCE`).
    features: float32 [b n f], cached features of the frames, which the model
      then does not compute, or a mapping of such arrays by the name of their
      tower (`conditioning/mmaudio.py`); None for none.
  """

  frames: Any = None
  frame_times: Any
  frame_mask: Any
  prompt: Any
  prompt_mask: Any
  transcript: Any
  transcript_times: Any
  transcript_durations: Any
  transcript_mask: Any
  transcript_timed: Any
  presence: Any
  features: Any = None

  def replace(self, **changes) -> "Conditioning":
    return dataclasses.replace(self, **changes)

  def without(self, *names: str, where=True) -> "Conditioning":
    """Drops conditions in the examples where `where` (bool or [b]) holds.

    Args:
      *names: any of `CONDITIONS`.
      where: True for all examples, or a bool array [b].
    """
    keep = ~jnp.broadcast_to(jnp.asarray(where), self.presence.shape[:1])
    changes = {}
    for name in names:
      if name == "presence":
        unknown = jnp.full_like(self.presence, UNKNOWN)
        changes[name] = jnp.where(keep[:, None], self.presence, unknown)
      else:
        mask = {"video": "frame_mask"}.get(name, f"{name}_mask")
        changes[mask] = getattr(self, mask) & keep[:, None]
    return self.replace(**changes)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
  """One global batch.

  Attributes:
    audio: float32 [b samples channels], zero after `duration`; None where a
      cached target is all that is read.
    duration: float32 [b], seconds of the window that exist.
    cond: the conditions.
    example: int [b], which records these are.
    target: latents [b t c] or codes [b t q] to produce, filled in by a target
      (`codec/target.py`) or cached; None before.
    target_std: float32 [b t c], deviation of the latents, of which `target` is
      then the mean; None where they are certain.
    target_times: float32 [t], seconds.
    target_mask: bool [b t], True where the clip exists.
    representation: float32 [b t f], a teacher's features at the same times
      (`objectives/teacher.py`); None without one.
  """

  audio: Any
  duration: Any
  cond: Conditioning
  example: Any
  target: Any = None
  target_std: Any = None
  target_times: Any = None
  target_mask: Any = None
  representation: Any = None

  def replace(self, **changes) -> "Batch":
    return dataclasses.replace(self, **changes)

  @classmethod
  def from_arrays(cls, arrays: Mapping[str, Any]) -> "Batch":
    """Groups a loader's flat dict; arrays are not copied."""
    names = [f.name for f in dataclasses.fields(Conditioning)]
    cond = {name: arrays[name] for name in names if name in arrays}
    return cls(
      audio=arrays.get("audio"),
      duration=arrays["duration"],
      cond=Conditioning(**cond),
      example=arrays["example"],
      target=arrays.get("target"),
      target_std=arrays.get("target_std"),
    )
