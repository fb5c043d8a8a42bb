"""Signed provenance: a C2PA manifest in each file that is delivered.

It says that a trained model made the sound, in which version of this package,
and what the watermark carries. The signature is over the whole file, so that
any later change shows (https://spec.c2pa.org). A manifest that the footage has
is carried on in that of the video. Who signs is said by two PEM files: `$V2A_C2PA_CERTIFICATES`, the signer's certificate and those that vouch for
it, and `$V2A_C2PA_KEY`, its private key; else it is nobody who could be known
(self_signed.py).

By c2pa-python (https://github.com/contentauth/c2pa-python), extra `delivery`.
Nothing is asked or fetched over a network.
"""

from collections.abc import Mapping
import dataclasses
import datetime
import functools
import importlib.util
import io
import os
import pathlib
from typing import Any
import uuid
import wave

import v2a_jax
from v2a_jax.basics import files
from v2a_jax.soundtrack import self_signed

CERTIFICATES, KEY = "V2A_C2PA_CERTIFICATES", "V2A_C2PA_KEY"
# Media types by the ending of a file; Matroska has no place for a manifest.
_TYPES = {
  ".mp4": "video/mp4",
  ".mov": "video/quicktime",
  ".wav": "audio/wav",
  ".flac": "audio/flac",
}
# Bytes: of sound alone c2pa 0.38 holds up to twice the file, of a video 0.5 GB at
# most.
_LARGEST_SOUND = 256 << 20
# What the sound is, and a video of which only the sound is so.
# https://cv.iptc.org/newscodes/digitalsourcetype
_SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_SOUND = f"{_SOURCE}trainedAlgorithmicMedia"
_VIDEO = f"{_SOURCE}compositeWithTrainedAlgorithmicMedia"
_SOUNDTRACK = "org.v2a-jax.soundtrack"
# Name of a signer who names none; and the code of one whom no list here knows.
NOBODY = "v2a_jax, self-signed"
_UNKNOWN = "signingCredential.untrusted"
# COSE's algorithms by the size of the key of an elliptic curve (RFC 9053).
_CURVES = {256: "es256", 384: "es384", 521: "es512"}


class ProvenanceError(ValueError):
  """A certificate or key cannot sign; one line: which file, and why."""


@dataclasses.dataclass(frozen=True)
class Signer:
  """Who signs.

  Attributes:
    name: subject of the certificate.
    algorithm: how it signs, such as es256.
    certificates: chain in PEM, the signer's own first.
    key: private key in PEM.
  """

  name: str
  algorithm: str
  certificates: bytes
  key: bytes = dataclasses.field(repr=False)

  @classmethod
  def read(cls, certificates: os.PathLike, key: os.PathLike) -> "Signer":
    """Reads the two files, and signs a short sound to know that they serve.

    Raises:
      ProvenanceError: a file cannot be read, the certificate has expired, is
        not the key's, or is not fit to sign such a manifest.
      ModuleNotFoundError: c2pa-python is not installed.
    """
    # Here, because only who signs needs them.
    import c2pa  # noqa: F401
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    chain, secret = _read(certificates), _read(key)
    try:
      own = x509.load_pem_x509_certificates(chain)[0]
    except ValueError as error:
      raise ProvenanceError(
        f"{certificates} holds no certificate in PEM ({error})"
      ) from None
    try:
      private = serialization.load_pem_private_key(secret, None)
    except (ValueError, TypeError) as error:
      raise ProvenanceError(
        f"{key} holds no private key in PEM without a password ({error})"
      ) from None
    now = datetime.datetime.now(datetime.UTC)
    if not own.not_valid_before_utc <= now <= own.not_valid_after_utc:
      raise ProvenanceError(
        f"{certificates} is valid from {own.not_valid_before_utc:%Y-%m-%d} to"
        f" {own.not_valid_after_utc:%Y-%m-%d} only"
      )
    if own.public_key() != private.public_key():
      raise ProvenanceError(f"{key} is not the key of {certificates}")
    algorithm = _algorithm(private)
    if algorithm is None:
      raise ProvenanceError(
        f"{key} is of a kind that C2PA does not know; it takes elliptic curves"
        " P-256, P-384 and P-521, Ed25519 and RSA"
      )
    signer = cls(own.subject.rfc4514_string(), algorithm, chain, secret)
    signer._try_out(certificates)
    return signer

  def sign(
    self,
    path: pathlib.Path,
    facts: Mapping[str, Any],
    footage: pathlib.Path | None = None,
  ) -> str:
    """Puts a signed manifest into a file; returns the manifest's name.

    Args:
      path: file of a kind for which `refusal` is "".
      facts: what is known of the soundtrack, JSON-able.
      footage: video to which the sound was added, if this is a video. If it has
        a manifest, signed or damaged as it is, that becomes part of the new one.

    Raises:
      OSError: it cannot be written; the file is as it was.
    """
    if footage is not None and read(footage) is None:
      footage = None
    with files.written(path) as part:
      with open(path, "rb") as source, open(part, "w+b") as target:
        return self._sign(
          _TYPES[path.suffix], source, target, path.name, facts, footage
        )

  def _sign(
    self, kind: str, source, target, title: str, facts, footage=None
  ) -> str:
    import c2pa

    info = c2pa.C2paSignerInfo(
      alg=self.algorithm.encode(),
      sign_cert=self.certificates,
      private_key=self.key,
      ta_url=None,
    )
    with c2pa.Signer.from_info(info) as signer:
      manifest = _manifest(kind, title, facts, edited=footage is not None)
      with c2pa.Builder(manifest, context=_offline()) as builder:
        if footage is not None:
          builder.set_intent(c2pa.C2paBuilderIntent.EDIT)
          parent = {"title": footage.name, "relationship": "parentOf"}
          with open(footage, "rb") as file:
            builder.add_ingredient(parent, _type(footage), file)
        builder.sign(signer, kind, source, target)
    return manifest["label"]

  def _try_out(self, certificates: os.PathLike) -> None:
    import c2pa

    sound = io.BytesIO()
    with wave.open(sound, "wb") as file:
      file.setparams((1, 2, 8_000, 0, "NONE", ""))
      file.writeframes(bytes(16))
    sound.seek(0)
    try:
      self._sign("audio/wav", sound, io.BytesIO(), "trial", {})
    except c2pa.C2paError as error:
      raise ProvenanceError(
        f"{certificates} cannot sign: {' '.join(str(error).split())}"
      ) from None


def signer() -> Signer | None:
  """Returns who signs; None where c2pa-python is not installed.

  Raises:
    ProvenanceError: only one of the two variables is set, or as `Signer.read`.
    ModuleNotFoundError: both are, and c2pa-python is not installed.
  """
  named = {name: os.environ.get(name, "") for name in (CERTIFICATES, KEY)}
  if not any(named.values()):
    return _self_signed() if importlib.util.find_spec("c2pa") else None
  for name, path in named.items():
    if not path:
      raise ProvenanceError(
        f"${name} is not set, and the other of ${CERTIFICATES} and ${KEY} is;"
        " signing takes both"
      )
  return Signer.read(*map(pathlib.Path, named.values()))


@functools.cache
def _self_signed() -> Signer:
  return Signer(NOBODY, "es256", *self_signed.make(NOBODY))


@dataclasses.dataclass(frozen=True)
class Signed:
  """What the manifest of a file says, and whether that holds.

  Attributes:
    signer: common name in the certificate.
    made_by: program and version that wrote the manifest.
    fault: why the signature does not hold, such as a later change; "" if it
      does. Whether the signer is who that says, is not asked.
    footage_signer: common name of who signed the footage; "" if nobody did.
  """

  signer: str
  made_by: str
  fault: str
  footage_signer: str = ""

  def __str__(self) -> str:
    """Puts it into words."""
    footage = self.footage_signer and f", footage by {self.footage_signer!r}"
    state = f"not valid: {self.fault}" if self.fault else "unchanged since"
    return f"signed by {self.signer!r} with {self.made_by}{footage}, {state}"


def read(path: os.PathLike) -> Signed | None:
  """Reads who signed a file; None if it has no manifest, or c2pa is not there."""
  if not importlib.util.find_spec("c2pa"):
    return None
  import c2pa

  path = pathlib.Path(path)
  try:
    with (
      open(files.open_regular(path), "rb") as file,
      c2pa.Reader(_type(path), file, context=_offline()) as reader,
    ):
      manifest, state = (
        reader.get_active_manifest(),
        reader.get_validation_state(),
      )
      found = reader.get_validation_results() or {}
      footage = _footage(reader, manifest)
  except c2pa.C2paError:
    return None
  faults = found.get("activeManifest", {}).get("failure", ())
  told = [of["explanation"] for of in faults if of["code"] != _UNKNOWN]
  made_by = (manifest.get("claim_generator_info") or [{}])[0]
  return Signed(
    signer=_common_name(manifest),
    made_by=" ".join(made_by.get(k, "") for k in ("name", "version")).strip(),
    fault="" if state != "Invalid" else "; ".join(told) or "it is not valid",
    footage_signer=_common_name(footage) if footage else "",
  )


def _footage(reader: Any, manifest: Mapping[str, Any]) -> dict[str, Any] | None:
  """Returns the manifest of the file that a signed file was made of, if any."""
  for part in manifest.get("ingredients", ()):
    if part["relationship"] == "parentOf" and part.get("active_manifest"):
      return reader.get_manifest(part["active_manifest"])
  return None


def _common_name(manifest: Mapping[str, Any]) -> str:
  return (manifest.get("signature_info") or {}).get("common_name") or "?"


def _type(path: pathlib.Path) -> str:
  """Returns the media type by which c2pa reads a file."""
  ending = path.suffix.lower()
  return _TYPES.get(ending, ending[1:])


def _offline() -> Any:
  """Returns settings of C2PA: no requests to addresses in a file, less memory."""
  import c2pa

  verify = {"remote_manifest_fetch": False, "ocsp_fetch": False}
  core = {"backing_store_memory_threshold_in_mb": 16}
  return c2pa.Context(c2pa.Settings.from_dict({"verify": verify, "core": core}))


def refusal(path: pathlib.Path) -> str:
  """Says why a file is not signed; "" if it can be."""
  if path.suffix not in _TYPES:
    return f"{path.suffix[1:]} files have no place for a manifest"
  size = path.stat().st_size
  if path.suffix in (".wav", ".flac") and size > _LARGEST_SOUND:
    return (
      f"its {size >> 20:,} MiB are over {_LARGEST_SOUND >> 20}, and c2pa-python"
      " would take up to twice that memory"
    )
  return ""


def _read(path: os.PathLike) -> bytes:
  try:
    return files.read_bytes(path)
  except OSError as error:
    reason = error.strerror or error
    raise ProvenanceError(f"cannot read {path}: {reason}") from None


def _algorithm(key: Any) -> str | None:
  """Returns the name by which C2PA knows a private key's signatures."""
  from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

  if isinstance(key, ec.EllipticCurvePrivateKey):
    return _CURVES.get(key.key_size)
  if isinstance(key, ed25519.Ed25519PrivateKey):
    return "ed25519"
  return "ps256" if isinstance(key, rsa.RSAPrivateKey) else None


def _manifest(
  kind: str, title: str, facts: Mapping[str, Any], edited: bool
) -> dict[str, Any]:
  agent = {"name": "v2a_jax", "version": v2a_jax.__version__}
  made = {
    "action": "c2pa.edited" if edited else "c2pa.created",
    "digitalSourceType": _SOUND if kind.startswith("audio") else _VIDEO,
    "softwareAgent": agent,
    "description": "The sound was generated from the picture.",
  }
  return {
    "label": f"urn:c2pa:{uuid.uuid4()}",
    "claim_generator_info": [agent],
    "title": title,
    "format": kind,
    "assertions": [
      {"label": "c2pa.actions.v2", "data": {"actions": [made]}},
      {"label": _SOUNDTRACK, "data": dict(facts)},
    ],
  }
