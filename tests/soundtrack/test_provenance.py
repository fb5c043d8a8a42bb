"""Signed files: who made them, that nothing changed, and what cannot sign."""

import dataclasses
import datetime
from fractions import Fraction
import hashlib
import json
import shutil
import sys

import av
import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
import numpy as np
import pytest

from launch import cli
from tests.data_pipelines.samples import write_clip
from v2a_jax import media, watermark
from v2a_jax.soundtrack import provenance
from v2a_jax.soundtrack.request import Request
from v2a_jax.soundtrack.takes import Soundtrack, Soundtracks

RATE = 16_000
_PEM = serialization.Encoding.PEM
_DAY = datetime.timedelta(days=1)
_KEYS = {
  "es256": lambda: ec.generate_private_key(ec.SECP256R1()),
  "es384": lambda: ec.generate_private_key(ec.SECP384R1()),
  "ed25519": ed25519.Ed25519PrivateKey.generate,
  "ps256": lambda: rsa.generate_private_key(65537, 2048),
}


def certificate(name, key, issuer, issuer_key, *, ca, days=(-1, 30), use=None):
  """Makes a certificate of the kind that C2PA asks for."""
  now = datetime.datetime.now(datetime.UTC)
  named = lambda text: x509.Name(
    [
      x509.NameAttribute(NameOID.COMMON_NAME, text),
      x509.NameAttribute(NameOID.ORGANIZATION_NAME, "A studio"),
    ]
  )
  usage = dict.fromkeys(
    "content_commitment key_encipherment data_encipherment key_agreement"
    " encipher_only decipher_only".split(),
    False,
  )
  builder = (
    x509.CertificateBuilder()
    .subject_name(named(name))
    .issuer_name(named(issuer))
    .public_key(key.public_key())
    .serial_number(x509.random_serial_number())
    .not_valid_before(now + days[0] * _DAY)
    .not_valid_after(now + days[1] * _DAY)
    .add_extension(x509.BasicConstraints(ca, None), critical=True)
    .add_extension(
      x509.KeyUsage(
        digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, **usage
      ),
      critical=True,
    )
    .add_extension(
      x509.AuthorityKeyIdentifier.from_issuer_public_key(
        issuer_key.public_key()
      ),
      critical=False,
    )
  )
  if not ca:
    use = use or ExtendedKeyUsageOID.EMAIL_PROTECTION
    builder = builder.add_extension(x509.ExtendedKeyUsage([use]), False)
  return builder.sign(issuer_key, hashes.SHA256())


def write_identity(folder, kind="es256", **settings):
  """Writes a chain and its key; returns their paths."""
  folder.mkdir(exist_ok=True)
  authority, key = _KEYS["es256"](), _KEYS[kind]()
  root = certificate(
    "An authority", authority, "An authority", authority, ca=True
  )
  own = certificate(
    "A mixer", key, "An authority", authority, ca=False, **settings
  )
  chain, secret = folder / "chain.pem", folder / "key.pem"
  chain.write_bytes(own.public_bytes(_PEM) + root.public_bytes(_PEM))
  secret.write_bytes(
    key.private_bytes(
      _PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
  )
  return chain, secret


@pytest.fixture(scope="module")
def identity(tmp_path_factory):
  return write_identity(tmp_path_factory.mktemp("identity"))


@pytest.fixture
def named(identity, monkeypatch):
  """Names the signer in the environment."""
  for name, path in zip((provenance.CERTIFICATES, provenance.KEY), identity):
    monkeypatch.setenv(name, str(path))


@pytest.fixture(scope="module")
def takes(tmp_path_factory):
  film = write_clip(tmp_path_factory.mktemp("films") / "shot.mp4", seconds=2.0)
  sound = 0.1 * np.random.default_rng(0).standard_normal((2 * RATE, 1))
  take = Soundtrack(
    samples=sound.astype(np.float32), sample_rate=RATE, seed=7, score=1.0
  )
  return Soundtracks(
    video=film,
    request=Request(prompt="a private prompt"),
    candidates=(take,),
    model={"checkpoint": {"path": "x"}},
    seconds=Fraction(2),
  )


def read(path):
  """What C2PA's own reader says of a file: (state, active manifest)."""
  with c2pa.Reader(str(path)) as reader:
    return reader.get_validation_state(), reader.get_active_manifest()


def packets(path):
  with av.open(str(path)) as container:
    found = [
      hashlib.sha256(bytes(p)).hexdigest()
      for p in container.demux(video=0)
      if p.size
    ]
  return found


@pytest.mark.parametrize(
  "options",
  [
    dict(),
    dict(container="mov", audio_codec="pcm", sound_file="flac"),
  ],
  ids=["mp4, wav", "mov, flac"],
)
def test_each_file_says_that_a_model_made_its_sound(
  takes, named, tmp_path, options
):
  done = takes.save(tmp_path / "out", payload=1234, **options)
  (row,) = json.loads(done.sidecar.read_text())["candidates"]
  for path, kind in [
    (done.videos[0], "compositeWithTrainedAlgorithmicMedia"),
    (done.waves[0], "trainedAlgorithmicMedia"),
  ]:
    state, manifest = read(path)
    assert state == "Valid"
    said = row["provenance"][path.name]
    assert said["manifest"] == manifest["label"]
    assert "A mixer" in said["signed_by"]
    assert manifest["signature_info"]["common_name"] == "A mixer"
    found = {a["label"]: a["data"] for a in manifest["assertions"]}
    (action,) = found["c2pa.actions.v2"]["actions"]
    assert action["action"] == "c2pa.created"
    assert action["digitalSourceType"].endswith(f"/{kind}")
    facts = found["org.v2a-jax.soundtrack"]
    assert facts["watermark"] == {"payload": 1234}
    assert facts["sha256_samples"] == row["sha256_samples"]
    assert "private" not in json.dumps(manifest)
  # The picture is what it was, and sound and mark are found as before.
  assert packets(done.videos[0]) == packets(takes.video)
  for path in (*done.videos, *done.waves):
    sound = media.read_audio(path, sample_rate=48_000).samples
    found = watermark.detect(sound, 48_000)
    assert found.found and found.payload == 1234


@pytest.mark.parametrize("which", ["videos", "waves"])
def test_any_change_shows(takes, named, tmp_path, which):
  (path,) = getattr(takes.save(tmp_path), which)
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(bytes(data))
  assert read(path)[0] == "Invalid"


@pytest.mark.parametrize("kind", list(_KEYS))
def test_keys_of_the_kinds_that_c2pa_knows_sign(kind, tmp_path):
  signer = provenance.Signer.read(*write_identity(tmp_path / kind, kind))
  assert signer.algorithm == kind
  path = tmp_path / "sound.wav"
  media.write_wav(path, np.zeros((800, 1), np.float32), 8_000)
  signer.sign(path, {})
  assert read(path)[0] == "Valid"


def test_what_is_not_signed_is_said(takes, named, tmp_path, monkeypatch):
  unsigned = lambda done, name: json.loads(done.sidecar.read_text())[
    "candidates"
  ][0]["provenance"][name]["unsigned"]
  done = takes.save(tmp_path / "a", container="mkv")
  assert "mkv" in unsigned(done, done.videos[0].name)
  assert read(done.waves[0])[0] == "Valid"
  done = takes.save(tmp_path / "b", sign=False)
  assert unsigned(done, done.waves[0].name) == "by choice"
  monkeypatch.delenv(provenance.CERTIFICATES)
  monkeypatch.delenv(provenance.KEY)
  monkeypatch.setitem(sys.modules, "c2pa", None)
  done = takes.save(tmp_path / "c")
  assert "not installed" in unsigned(done, done.waves[0].name)
  assert provenance.read(done.waves[0]) is None


def test_long_sound_alone_is_not_signed(takes, tmp_path, monkeypatch):
  """Its video is: only for sound alone does memory grow with the file."""
  monkeypatch.setattr(provenance, "_LARGEST_SOUND", 1 << 10)
  done = takes.save(tmp_path)
  (row,) = json.loads(done.sidecar.read_text())["candidates"]
  said = row["provenance"]
  assert "memory" in said[done.waves[0].name]["unsigned"]
  assert said[done.videos[0].name]["signed_by"] == provenance.NOBODY
  assert provenance.read(done.waves[0]) is None


def test_who_names_nobody_signs_as_nobody_known(takes, tmp_path, capsys):
  """And `v2a watermark detect` says so, and that a file has changed since."""
  done = takes.save(tmp_path / "out")
  (row,) = json.loads(done.sidecar.read_text())["candidates"]
  for path in (*done.videos, *done.waves):
    state, manifest = read(path)
    assert state == "Valid"
    assert manifest["signature_info"]["common_name"] == provenance.NOBODY
    assert row["provenance"][path.name]["signed_by"] == provenance.NOBODY
  (path,) = done.waves
  assert cli.main(["watermark", "detect", str(path)]) == 0
  said = capsys.readouterr().out.splitlines()[1]
  assert provenance.NOBODY in said and said.endswith("unchanged since")
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(bytes(data))
  assert cli.main(["watermark", "detect", "--json", str(path)]) == 0
  signed = json.loads(capsys.readouterr().out)["signed"]
  assert signed["signer"] == provenance.NOBODY and "hash" in signed["fault"]


@pytest.mark.parametrize("harm", [False, True], ids=["whole", "changed"])
def test_the_manifest_of_the_footage_is_carried_on(
  takes, identity, tmp_path, monkeypatch, harm
):
  """As it is: a camera's signature stays readable, a broken one stays broken."""
  film = tmp_path / "film.mp4"
  shutil.copy(takes.video, film)
  camera = provenance.Signer.read(*identity)
  label = camera.sign(film, {})
  if harm:
    data = bytearray(film.read_bytes())
    data[len(data) // 2] ^= 1
    film.write_bytes(bytes(data))
  done = dataclasses.replace(takes, video=film).save(tmp_path / "out")
  (path,) = done.videos
  with c2pa.Reader(str(path)) as reader:
    assert reader.get_validation_state() == "Valid"
    manifest = reader.get_active_manifest()
    (part,) = manifest["ingredients"]
  assert part["active_manifest"] == label
  assert part["relationship"] == "parentOf" and part["title"] == "film.mp4"
  failed = part["validation_results"]["activeManifest"]["failure"]
  codes = {of["code"] for of in failed}
  assert ("assertion.bmffHash.mismatch" in codes) == harm
  (actions,) = (
    a["data"]["actions"]
    for a in manifest["assertions"]
    if a["label"] == "c2pa.actions.v2"
  )
  assert [a["action"] for a in actions] == ["c2pa.opened", "c2pa.edited"]
  signed = provenance.read(path)
  assert (signed.signer, signed.fault) == (provenance.NOBODY, "")
  assert signed.footage_signer == "A mixer"
  # The sound alone was not made by changing the footage.
  (wave,) = done.waves
  assert not read(wave)[1].get("ingredients")
  assert provenance.read(wave).footage_signer == ""


def test_footage_is_carried_on_in_another_container_too(
  takes, identity, tmp_path
):
  """Motion JPEG does not go into MP4, so the video becomes a MOV."""
  film = tmp_path / "film.mov"
  with av.open(str(film), "w") as out:
    stream = out.add_stream("mjpeg", rate=10)
    stream.width, stream.height, stream.pix_fmt = 32, 32, "yuvj420p"
    for _ in range(20):
      frame = av.VideoFrame.from_ndarray(
        np.full((32, 32, 3), 90, np.uint8), format="rgb24"
      )
      out.mux(stream.encode(frame))
    out.mux(stream.encode(None))
  provenance.Signer.read(*identity).sign(film, {})
  done = dataclasses.replace(takes, video=film).save(tmp_path / "out")
  (path,) = done.videos
  assert path.suffix == ".mov"
  assert provenance.read(path).footage_signer == "A mixer"


def old(folder):
  return write_identity(folder, days=(-30, -1))


def other_use(folder):
  return write_identity(folder, use=ExtendedKeyUsageOID.SERVER_AUTH)


def strangers(folder):
  return write_identity(folder)[0], write_identity(folder / "b")[1]


def no_pem(folder):
  chain, key = write_identity(folder)
  chain.write_text("hello")
  return chain, key


def absent(folder):
  return write_identity(folder)[0], folder / "gone.pem"


def locked(folder):
  chain, key = write_identity(folder)
  own = serialization.load_pem_private_key(key.read_bytes(), None)
  lock = serialization.BestAvailableEncryption(b"secret")
  key.write_bytes(
    own.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, lock)
  )
  return chain, key


@pytest.mark.parametrize(
  ("make", "says"),
  [
    (old, "is valid from"),
    (other_use, "cannot sign"),
    (strangers, "is not the key of"),
    (no_pem, "holds no certificate"),
    (absent, "gone.pem: No such file"),
    (locked, "without a password"),
  ],
  ids=lambda x: getattr(x, "__name__", ""),
)
def test_who_cannot_sign_is_told_before_the_work(
  make, says, takes, tmp_path, monkeypatch, capsys
):
  chain, key = make(tmp_path / "identity")
  monkeypatch.setenv(provenance.CERTIFICATES, str(chain))
  monkeypatch.setenv(provenance.KEY, str(key))
  out = tmp_path / "out"
  code = cli.main(["generate", str(takes.video), "-o", str(out)])
  error = capsys.readouterr().err
  assert code == 2 and says in error and error.count("\n") == 1
  assert not out.exists() or not list(out.rglob("*.mp4"))


def test_one_variable_alone_is_refused(named, monkeypatch):
  monkeypatch.delenv(provenance.KEY)
  with pytest.raises(provenance.ProvenanceError, match="V2A_C2PA_KEY is not"):
    provenance.signer()


def test_a_key_is_not_shown(identity):
  signer = provenance.Signer.read(*identity)
  assert "PRIVATE" not in repr(signer)
