"""What every request passes: where it is from, how much, how often.

The service answers to the names that it was started with, so that no other web
page can reach it through a name of its own (DNS rebinding), and changes nothing
for a page of another origin.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
import json
import time
from typing import Any
from urllib import parse

_JSON_BYTES = 1 << 20
_HEADERS = {
  "content-security-policy": (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:;"
    " object-src 'none'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
  ),
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-resource-policy": "same-origin",
}
_READS = ("GET", "HEAD")
_MANY = 10_000  # clients that are remembered

Scope = MutableMapping[str, Any]


class TooLargeError(Exception):
  """A body is larger than it may be."""


class Guard:
  """ASGI middleware with limits.

  Args:
    app: the application.
    hosts: names, without port, that the service answers to.
    upload_bytes: size of a body that is uploaded.
    uploads: paths of requests that upload files; other bodies are small JSON.
    per_minute: how many requests a client may make that change something.
    upload_seconds: how long a request may take to arrive.
  """

  def __init__(
    self,
    app,
    *,
    hosts: tuple[str, ...],
    upload_bytes: int,
    uploads: tuple[str, ...],
    per_minute: int,
    upload_seconds: float,
  ):
    self.app, self.hosts = app, hosts
    self.upload_bytes, self.uploads = upload_bytes, uploads
    self.per_minute, self.upload_seconds = per_minute, upload_seconds
    self._left: dict[str, tuple[float, float]] = {}  # client: (tokens, time)

  async def __call__(
    self,
    scope: Scope,
    receive: Callable[[], Awaitable[Any]],
    send: Callable[[Any], Awaitable[None]],
  ) -> None:
    if scope["type"] != "http":
      await self.app(scope, receive, send)
      return
    headers = {
      k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]
    }
    send = _with_headers(send)
    refusal = self._refusal(scope, headers)
    if refusal:
      await _answer(send, *refusal)
      return
    receive = _counted(receive, self._limit(scope), self.upload_seconds)
    await self.app(scope, receive, send)

  def _refusal(self, scope: Scope, headers) -> tuple[int, str] | None:
    host = headers.get("host", "")
    if parse.urlsplit(f"//{host}").hostname not in self.hosts:
      return 421, "this service has another name; see v2a serve --allow_host"
    if scope["method"] in _READS:
      return None
    origin = headers.get("origin")
    if origin and parse.urlsplit(origin).netloc != host:
      return 403, "a page of another origin asks"
    if not headers.get("content-length", "0").isdigit():
      return 400, "content-length is no number"
    limit = self._limit(scope)
    if int(headers.get("content-length", 0)) > limit:
      return 413, f"over {limit >> 20} MiB"
    if not self._allows((scope.get("client") or ("",))[0]):
      return 429, f"over {self.per_minute} requests a minute; wait a little"
    return None

  def _limit(self, scope: Scope) -> int:
    return self.upload_bytes if scope["path"] in self.uploads else _JSON_BYTES

  def _allows(self, client: str) -> bool:
    """Takes one from a client's store, which fills again in a minute."""
    now = time.monotonic()
    if len(self._left) > _MANY:
      self._left.clear()
    tokens, then = self._left.get(client, (float(self.per_minute), now))
    tokens = min(tokens + (now - then) * self.per_minute / 60, self.per_minute)
    self._left[client] = (tokens - 1 if tokens >= 1 else tokens, now)
    return tokens >= 1


def _with_headers(send):
  async def wrapped(message) -> None:
    if message["type"] == "http.response.start":
      message["headers"] = [
        *message.get("headers", []),
        *((k.encode(), v.encode()) for k, v in _HEADERS.items()),
      ]
    await send(message)

  return wrapped


def _counted(receive, limit: int, seconds: float):
  """Returns `receive` for a body of so many bytes, within so many seconds."""
  read, deadline, done = 0, time.monotonic() + seconds, False

  async def wrapped():
    nonlocal read, done
    if done:  # What follows is that the client has left, whenever it does.
      return await receive()
    async with asyncio.timeout(max(deadline - time.monotonic(), 0)):
      message = await receive()
    done = not message.get("more_body", False)
    read += len(message.get("body", b""))
    if read > limit:
      raise TooLargeError(f"over {limit >> 20} MiB")
    return message

  return wrapped


async def _answer(send, status: int, detail: str) -> None:
  body = json.dumps({"detail": detail}).encode()
  headers = [(b"content-type", b"application/json")]
  if status in (429, 503):
    headers.append((b"retry-after", b"10"))
  if status == 413:  # The rest of the body is not waited for.
    headers.append((b"connection", b"close"))
  start = {"type": "http.response.start", "status": status, "headers": headers}
  await send(start)
  await send({"type": "http.response.body", "body": body})
