"""Serve a page and an HTTP API that make soundtracks.

Open http://127.0.0.1:7860 in a browser; programs find the API described in
/openapi.json. Uploads, takes and the audit log are in --output.
"""

import importlib.util
import pathlib

from launch import parsing

ARGUMENTS = """
-o, --output DIR      folder of uploads, takes and the audit log (required)
--checkpoint NAME     workdir of v2a train, bundle, or a published model such as
                      mmaudio:small_16k (default: the bundled diffusion_tiny)
--step STEP           training step of the checkpoint, or best: that of the best
                      validation result (default: the newest)
--host NAME           address to listen at (default 127.0.0.1)
--port N              port to listen at (default 7860)
--allow_host NAME     further name by which it is reached, such as that of a
                      proxy before it (repeatable)
--policy FILE         Python file with policy(event, facts), asked before each
                      upload, job, export of a take, and look for the watermark;
                      returns why not, or None
--key TEXT            key of the watermark (default: $V2A_WATERMARK_KEY, or the
                      published key)
--read_limits FACTOR  how many times the usual work and memory reading a video
                      may take (default 1)
limits:
--upload_mb COUNT     size of an upload in MB (default 2048)
--upload_seconds SECONDS
                      how long an upload may take (default 900)
--max_seconds SECONDS
                      seconds of a video that are scored (default 600)
--max_candidates COUNT
                      candidates of a job (default 16)
--max_steps COUNT     solver steps (default 200)
--per_minute COUNT    uploads, jobs and changes of a client in a minute (default
                      60)
--queue COUNT         jobs that may wait, and so many exports (default 32)
--keep_hours X        hours after which jobs without a kept take are removed
                      (default 48)
"""
EXAMPLE = "v2a serve -o served"


def main(argv: list[str]) -> int:
  """Runs `v2a serve`."""
  args = parsing.Parser("v2a serve", __doc__, ARGUMENTS, EXAMPLE).parse(argv)
  args.allow_host = tuple(args.allow_host or ())
  policy = _policy(args.policy) if args.policy else None
  import uvicorn

  from v2a_jax import media
  from v2a_jax.basics import claim
  from v2a_jax.basics.paths import local_path
  from v2a_jax.experiment import card
  from v2a_jax.service import app
  from v2a_jax.service.options import ServiceOptions
  from v2a_jax.soundtrack import provenance
  from v2a_jax.soundtrack.synthesizer import DEFAULT
  from v2a_jax.soundtrack.tracker import Soundtracker

  options = parsing.fill(ServiceOptions, args)
  provenance.signer()  # Who is named to sign must be able to.
  limits = media.Limits().scaled(args.read_limits)
  root = local_path(args.output, "the output folder")
  with claim.held(root):
    tracker = Soundtracker.load(args.checkpoint, step=args.step)
    application = app.create(
      tracker,
      root,
      options,
      hosts=tuple({"localhost", "127.0.0.1", "::1", args.host}),
      key=args.key,
      limits=limits,
      checkpoint=pathlib.PurePath(args.checkpoint or "").name,
      card=card.served(
        args.checkpoint or DEFAULT, tracker.describe()["checkpoint"]
      ),
      **({"policy": policy} if policy else {}),
    )
    print(f"http://{args.host}:{args.port}", flush=True)
    uvicorn.run(
      application,
      host=args.host,
      port=args.port,
      log_level="warning",
      server_header=False,
      timeout_keep_alive=20,
      limit_concurrency=200,
    )
  return 0


def _policy(path: str):
  """Returns the function `policy` of a Python file.

  Raises:
    UsageError: the file is not there, or has no such function.
  """
  file = parsing.existing(path, "policy")
  spec = importlib.util.spec_from_file_location(pathlib.Path(file).stem, file)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not callable(getattr(module, "policy", None)):
    raise parsing.UsageError(f"{path} has no function policy(event, facts)")
  return module.policy
