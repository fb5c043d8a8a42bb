"""Limits of a service, and who is asked before it works."""

from collections.abc import Callable
import dataclasses
from typing import Any

from v2a_jax.basics.settings import check

# policy(event, facts) -> reason for a refusal, or None.
Policy = Callable[[str, dict[str, Any]], str | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServiceOptions:
  """Limits of a service.

  Attributes:
    allow_host: further names, without port, by which it may be reached.
    upload_mb: size of an upload in MB.
    upload_seconds: how long an upload may take.
    max_seconds: seconds of a video that are scored.
    max_candidates: candidates of a job.
    max_steps: solver steps.
    per_minute: uploads, jobs and changes of a client in a minute.
    queue: jobs that may wait; also exports, uploads to be read, and files to
      look into.
    keep_hours: after how many hours jobs without a kept take are removed.
  """

  allow_host: tuple[str, ...] = ()
  upload_mb: int = 2048
  upload_seconds: float = 900.0
  max_seconds: float = 600.0
  max_candidates: int = 16
  max_steps: int = 200
  per_minute: int = 60
  queue: int = 32
  keep_hours: float = 48.0

  def __post_init__(self):
    check(
      self,
      upload_mb="[1, inf)",
      upload_seconds="(0, inf)",
      max_seconds="(0, inf)",
      max_candidates="[1, 1024]",
      max_steps="[1, inf)",
      per_minute="[1, inf)",
      queue="[1, inf)",
      keep_hours="(0, inf)",
    )
