"""A certificate of one's own, for those who name none.

Its key lives in this process alone. So a signature shows that a file is as it
was written, and not by whom.
"""

import datetime

import v2a_jax

_DAYS = 20 * 365


def make(name: str) -> tuple[bytes, bytes]:
  """Makes a certificate and an authority that vouches for it.

  They are what C2PA asks of certificates: version 3, digital signatures only, an
  extended use, and not signed by themselves.

  Args:
    name: common name of the signer.

  Returns:
    Chain and private key in PEM, on the curve P-256.

  Raises:
    ModuleNotFoundError: the package cryptography is not installed.
  """
  # Here, because only who signs needs them.
  from cryptography import x509
  from cryptography.hazmat.primitives import hashes, serialization
  from cryptography.hazmat.primitives.asymmetric import ec
  from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

  now = datetime.datetime.now(datetime.UTC)
  authority, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

  def certificate(name: str, key, *, ca: bool) -> x509.Certificate:
    subject = lambda text: x509.Name(
      [
        x509.NameAttribute(NameOID.COMMON_NAME, text),
        x509.NameAttribute(
          NameOID.ORGANIZATION_NAME, f"v2a_jax {v2a_jax.__version__}"
        ),
      ]
    )
    use = x509.KeyUsage(
      digital_signature=not ca,
      key_cert_sign=ca,
      crl_sign=ca,
      content_commitment=False,
      key_encipherment=False,
      data_encipherment=False,
      key_agreement=False,
      encipher_only=False,
      decipher_only=False,
    )
    builder = (
      x509.CertificateBuilder()
      .subject_name(subject(name))
      .issuer_name(subject(f"{name}, authority"))
      .public_key(key.public_key())
      .serial_number(x509.random_serial_number())
      .not_valid_before(now - datetime.timedelta(days=1))
      .not_valid_after(now + datetime.timedelta(days=_DAYS))
      .add_extension(x509.BasicConstraints(ca, None), critical=True)
      .add_extension(use, critical=True)
      .add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(
          authority.public_key()
        ),
        critical=False,
      )
    )
    if not ca:
      builder = builder.add_extension(
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]),
        critical=False,
      )
    return builder.sign(authority, hashes.SHA256())

  pem = serialization.Encoding.PEM
  chain = [
    certificate(name, own, ca=False),
    certificate(f"{name}, authority", authority, ca=True),
  ]
  key = own.private_bytes(
    pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
  )
  return b"".join(part.public_bytes(pem) for part in chain), key
