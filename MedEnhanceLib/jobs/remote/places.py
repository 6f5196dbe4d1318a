"""Machines that run jobs for this one, and the secrets of a worker that listens.

~/.medenhance/remote/         mode 0700, or the folder in $MEDENHANCE_REMOTE
    machines.json             of the client: name → set-up line
    token.sha256              of the worker: the hash of its token, never the token
    certificate.pem, key.pem  of the worker, where it made its own
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import json
import os
import re
import secrets
import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

from MedEnhanceLib.core.options import NAMES, is_name
from MedEnhanceLib.errors import ConfigError, DependencyError, OutputError
from MedEnhanceLib.io.atomic import atomic_write, output_error

_SCHEME = "medenhance"
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CERTIFICATE_DAYS = 3650


@dataclass(frozen=True)
class Place:
    """Where a worker listens, and what proves either side to the other.

    host, port: of the worker, or of this end of an SSH tunnel. token: what the worker asks for.
    sha256: of the worker's certificate; "" where the way there is an SSH tunnel.
    """

    host: str
    port: int
    token: str
    sha256: str = ""

    @classmethod
    def from_line(cls, line: str) -> Place:
        """The place that a set-up line names; raises ConfigError for what is none.

        Without a certificate's hash it has to be this machine: anywhere else the token and the
        voxels could be read on their way.
        """
        try:
            url = urlsplit(line.strip())
            given = dict(parse_qsl(url.query, strict_parsing=True))
            host, port = url.hostname or "", url.port or 0
        except ValueError:
            url, given, host, port = urlsplit(""), {}, "", 0
        sha256 = given.get("sha256", "")
        is_well = url.scheme == _SCHEME and set(given) <= {"token", "sha256"} and host and port
        if (
            not is_well
            or not _TOKEN.fullmatch(given.get("token", ""))
            or not (sha256 == "" or _SHA256.fullmatch(sha256))
        ):
            raise ConfigError(
                "that is not the set-up line of a worker",
                "Copy the whole line that medenhance worker --listen has printed, in quotes.",
            )
        if not sha256 and not is_loopback(host):
            raise ConfigError(
                f"a worker on {host} without a certificate",
                "Start it with --tls, or lead an SSH tunnel to it and name localhost.",
            )
        return cls(host, port, given["token"], sha256)

    @property
    def line(self) -> str:
        """The set-up line."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        query = {"token": self.token} | ({"sha256": self.sha256} if self.sha256 else {})
        return f"{_SCHEME}://{host}:{self.port}?{urlencode(query)}"


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def folder() -> Path:
    """Where machines and secrets are kept; made on first use, for this user alone."""
    given = os.environ.get("MEDENHANCE_REMOTE")
    path = Path(given) if given else Path.home() / ".medenhance" / "remote"
    try:
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as cause:
        raise output_error(path, cause) from cause
    return path


def read_places() -> dict[str, Place]:
    """The machines that are known, by name; raises ConfigError for a damaged list."""
    path = folder() / "machines.json"
    if not path.exists():
        return {}
    try:
        lines = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): Place.from_line(str(line)) for name, line in lines.items()}
    except (OSError, ValueError, AttributeError, RecursionError, ConfigError) as cause:
        raise ConfigError(
            f"{path} cannot be read: {cause}", "Delete it, and add the machines again."
        ) from cause


def find_place(name: str) -> Place:
    """A machine by its name; raises ConfigError, with the names there are, where none has it."""
    places = read_places()
    if name not in places:
        raise ConfigError(
            f"there is no remote machine {name!r}",
            f"Known: {', '.join(places) or 'none'}. Add one: medenhance remote add NAME 'LINE'.",
        )
    return places[name]


def add_place(name: str, place: Place) -> None:
    """Remember a machine, in place of an earlier one of that name."""
    if not is_name(name):
        raise ConfigError(f"{name!r} cannot be a name", f"Use {NAMES}.")
    _write_places(read_places() | {name: place})


def remove_place(name: str) -> None:
    """Forget a machine; raises ConfigError where there is none of that name."""
    find_place(name)
    _write_places({other: place for other, place in read_places().items() if other != name})


def _write_places(places: dict[str, Place]) -> None:
    lines = {name: place.line for name, place in places.items()}
    _write_private(folder() / "machines.json", json.dumps(lines, indent=2))


def own_token(*, renew: bool) -> tuple[bytes, str]:
    """What a worker compares a client's token with: its SHA-256; and the token if it is new.

    The token is 256 random bits, so that a plain hash of it gives nothing away.
    """
    path = folder() / "token.sha256"
    if path.exists() and not renew:
        text = path.read_text(encoding="ascii", errors="replace").strip()
        if not _SHA256.fullmatch(text):
            raise ConfigError(f"{path} is damaged", "Make a new token: --new-token.")
        return bytes.fromhex(text), ""
    token = secrets.token_urlsafe(32)
    _write_private(path, hash_of(token).hex())
    return hash_of(token), token


def hash_of(token: str) -> bytes:
    """What a worker keeps of a token."""
    return hashlib.sha256(token.encode("utf-8", errors="replace")).digest()


def own_certificate() -> tuple[Path, Path]:
    """The worker's own certificate and key; made with the command openssl on first use.

    Raises DependencyError without that command, OutputError where it fails.
    """
    certificate, key = folder() / "certificate.pem", folder() / "key.pem"
    if certificate.exists() and key.exists():
        return certificate, key
    openssl = shutil.which("openssl")
    if openssl is None:
        raise DependencyError(
            "a certificate is made with the command openssl, which is not here",
            "Install it, or name a certificate of yours: --certificate FILE --key FILE.",
        )
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-nodes", "-subj", "/CN=medenhance", "-days", str(_CERTIFICATE_DAYS)]
    command += ["-keyout", str(key), "-out", str(certificate)]
    done = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        for path in (certificate, key):
            path.unlink(missing_ok=True)
        said = done.stderr.decode(errors="replace").strip()[-300:]
        raise OutputError(
            f"openssl made no certificate: {said}", "Name one of yours: --certificate, --key."
        )
    key.chmod(0o600)
    return certificate, key


def fingerprint(certificate: Path) -> str:
    """SHA-256 of the first certificate in a PEM file, as hex; raises ConfigError for no such."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    try:
        body = certificate.read_text(encoding="utf-8").partition(begin)[2].partition(end)[0]
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(f"{begin}{body}{end}")).hexdigest()
    except (OSError, ValueError) as cause:
        raise ConfigError(
            f"{certificate} is no certificate: {cause}", "Name a PEM file: --certificate FILE."
        ) from cause


def _write_private(path: Path, text: str) -> None:
    with atomic_write(path, overwrite=True) as temporary:
        with contextlib.suppress(NotImplementedError):
            temporary.chmod(0o600)
        temporary.write_text(f"{text}\n", encoding="utf-8")
