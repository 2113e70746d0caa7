"""Downloads, from an https server on this machine."""

import hashlib
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from threading import Thread

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from regente.data.core.download import Published, download

CONTENT = b"all of it" * 1000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    plain_port = 0  # of a server without TLS

    def do_GET(self) -> None:
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{Handler.plain_port}/whole")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: len(CONTENT) // 2] if self.path == "/half" else CONTENT)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1 with its key, in one file."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    file = folder / "certificate.pem"
    file.write_bytes(private + signed.public_bytes(pem))
    return file


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Its address; this process trusts its certificate."""
    file = certificate(tmp_path_factory.mktemp("server"))
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Handler) as https,
        ThreadingHTTPServer(("127.0.0.1", 0), Handler) as plain,
    ):
        https.socket = context.wrap_socket(https.socket, server_side=True)
        monkeypatch.setattr(Handler, "plain_port", plain.server_port)
        for each in (https, plain):
            Thread(target=each.serve_forever, daemon=True).start()
        yield f"https://127.0.0.1:{https.server_port}"
        https.shutdown()
        plain.shutdown()


def test_a_whole_file_of_the_right_checksum_gets_its_name(server: str, tmp_path: Path) -> None:
    download(Published("a/x.gz", MD5, [f"{server}/whole"]), tmp_path)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x.gz"]
    assert (tmp_path / "a/x.gz").read_bytes() == CONTENT


def test_a_download_that_breaks_off_leaves_no_file(server: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"/half gives a file of MD5 .* instead of"):
        download(Published("x.gz", MD5, [f"{server}/half"]), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_next_address_is_asked_when_one_fails(server: str, tmp_path: Path) -> None:
    download(Published("x.gz", MD5, [f"{server}/half", f"{server}/whole"]), tmp_path)
    assert (tmp_path / "x.gz").read_bytes() == CONTENT


def test_an_address_that_leads_away_from_https_is_refused(server: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"/away leads to http://127.0.0.1:\d+/whole, which is not https"):
        download(Published("x.gz", MD5, [f"{server}/away"]), tmp_path)
    assert not list(tmp_path.iterdir())
