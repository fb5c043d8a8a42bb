"""The application: the routes, with their limits and their errors."""

from collections.abc import AsyncIterator
import contextlib
import dataclasses
import pathlib

import fastapi
from fastapi import responses
from starlette import concurrency

import v2a_jax
from v2a_jax import media
from v2a_jax.service import guard
from v2a_jax.service import store as store_lib
from v2a_jax.service import worker as worker_lib
from v2a_jax.service.options import Policy, ServiceOptions
from v2a_jax.service.routes import UPLOADS, Routes
from v2a_jax.service.turns import QueueFullError


def create(
  tracker,
  root: pathlib.Path,
  options: ServiceOptions,
  *,
  hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "::1"),
  key: str | None = None,
  limits: media.Limits = media.DEFAULT_LIMITS,
  policy: Policy = lambda event, facts: None,
  checkpoint: str = "",
  card: str = "",
) -> fastapi.FastAPI:
  """Makes the application.

  Args:
    tracker: a `Soundtracker`.
    root: folder of everything that is uploaded and made.
    options: limits.
    hosts: names by which it may be reached.
    key: key of the watermark.
    limits: resource limits of reading a file.
    policy: asked before an upload, a job, an export of a take or a look for the
      watermark; what it returns is why not.
    checkpoint: what the command line calls the model; "" for the default.
    card: the model card, Markdown.
  """
  limits = dataclasses.replace(limits, file_bytes=options.upload_mb << 20)
  store = store_lib.Store(root)
  worker = worker_lib.Worker(
    store,
    tracker,
    limits=limits,
    key=key,
    queue=options.queue,
    keep_seconds=options.keep_hours * 3600,
  )

  @contextlib.asynccontextmanager
  async def lifespan(app) -> AsyncIterator[None]:
    worker.start()
    yield
    await concurrency.run_in_threadpool(worker.stop)

  app = fastapi.FastAPI(
    title="v2a_jax",
    version=v2a_jax.__version__,
    description="Soundtracks for silent videos; names as in `v2a generate`.",
    docs_url=None,  # Swagger's page would load scripts from elsewhere.
    redoc_url=None,
    lifespan=lifespan,
  )
  app.add_middleware(
    guard.Guard,
    hosts=(*hosts, *options.allow_host),
    upload_bytes=options.upload_mb << 20,
    uploads=UPLOADS,
    per_minute=options.per_minute,
    upload_seconds=options.upload_seconds,
  )
  _say_errors(app, store)
  routes = Routes(
    store, worker, tracker, options, limits, key, policy, checkpoint, card
  )
  routes.add_to(app)
  return app


def _say_errors(app: fastapi.FastAPI, store: store_lib.Store) -> None:
  """Makes answers of one line from the errors that are expected."""

  def answer(status: int, error: Exception, **headers):
    detail = worker_lib.hidden(error, store)
    return responses.JSONResponse(
      {"detail": detail}, status_code=status, headers=headers
    )

  app.exception_handler(guard.TooLargeError)(
    lambda _, e: answer(413, e, connection="close")
  )
  app.exception_handler(TimeoutError)(
    lambda _, e: answer(408, TimeoutError("it took too long to arrive"))
  )
  app.exception_handler(store_lib.NotFoundError)(lambda _, e: answer(404, e))
  app.exception_handler(media.MediaError)(lambda _, e: answer(422, e))
  app.exception_handler(ValueError)(lambda _, e: answer(422, e))
  # Without a number it is no error of the disk: weights are not there.
  app.exception_handler(OSError)(
    lambda _, e: answer(507 if e.errno else 501, e)
  )
  app.exception_handler(ModuleNotFoundError)(lambda _, e: answer(501, e))
  app.exception_handler(QueueFullError)(
    lambda _, e: answer(503, e, **{"retry-after": "30"})
  )
