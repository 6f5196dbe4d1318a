"""Sources at addresses: read by a copy that is gone afterwards, and nothing secret is repeated."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib.cli.main import main
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.jobs import addresses

_SECRET = "X-Signature=s3cr3t"


@pytest.fixture
def scan(tmp_path: Path, head: Volume) -> Path:
    me.save(head, tmp_path / "doe-john.nii.gz")
    return tmp_path / "doe-john.nii.gz"


@pytest.fixture
def in_memory(scan: Path) -> str:
    address = "memory://bucket/doe-john.nii.gz"
    with fsspec.open(address, "wb") as stream:
        stream.write(scan.read_bytes())
    return address


@pytest.fixture
def server(scan: Path) -> Iterator[str]:
    content = scan.read_bytes()

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path.startswith("/missing"):
                self.send_error(404, self.path)
                return
            self.send_response(200)
            if not path.startswith("/unstated"):
                # A server that says less than it sends is not believed either.
                said = {"/cut": len(content) + 9}.get(path[:4], len(content))
                self.send_header("Content-Length", str(said))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    served = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=served.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    served.server_close()


def test_every_scheme_of_fsspec_is_read(
    in_memory: str, head: Volume, temp_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert np.array_equal(me.load(in_memory).voxels, head.voxels)
    assert me.inspect(in_memory)["shape"] == list(head.shape)
    assert me.inspect(in_memory)["source"] == in_memory
    assert main(["inspect", in_memory]) == 0
    assert capsys.readouterr().out.startswith(f"{in_memory} (")
    assert [*temp_root.iterdir()] == []
    for path in ("sub-01::T1w.nii", "C://scan.nii", "scans//a.nii", Path("https://host/a.nii")):
        assert not addresses.is_remote(path)


def test_a_command_reads_an_address_and_repeats_no_secret(
    server: str, scan: Path, tmp_path: Path, temp_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"{server}/unstated/doe-john.nii.gz?{_SECRET}#{_SECRET}"
    assert main(["convert", address, str(tmp_path / "out.nrrd"), "--debug"]) == 0
    said = "".join(capsys.readouterr()) + (tmp_path / "out.nrrd.json").read_text()
    assert "s3cr3t" not in said
    assert "doe" not in said
    assert np.array_equal(me.load(tmp_path / "out.nrrd").voxels, me.load(scan).voxels)
    assert [*temp_root.iterdir()] == []


@pytest.mark.parametrize(
    ("place", "words"),
    [("missing", "answers 404"), ("cut", "ended after")],
)
def test_what_cannot_be_read_is_a_sentence_without_the_signature(
    server: str,
    place: str,
    words: str,
    temp_root: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["inspect", f"{server}/{place}/a.nii.gz?{_SECRET}", "--debug"]) == 3
    err = capsys.readouterr().err
    assert words in err
    assert "s3cr3t" not in err
    assert [*temp_root.iterdir()] == []


@pytest.mark.parametrize(
    ("address", "status", "words"),
    [
        ("s3://bucket/a.nii.gz", 4, "s3fs"),
        ("nowhere://bucket/a.nii.gz", 2, "fsspec knows no addresses"),
        ("https://user:word@host/a.nii.gz", 2, "https://host/a.nii.gz"),
        ("https://word@host/a.nii.gz", 2, "https://host/a.nii.gz"),
    ],
)
def test_an_address_that_cannot_be_read_here_is_refused(
    address: str, status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if address.startswith("s3") and fsspec_has("s3"):
        pytest.skip("s3fs is installed")
    assert main(["inspect", address]) == status
    err = capsys.readouterr().err
    assert words in err
    assert "word@" not in err


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://TOKEN@host/a.nii", "https://host/a.nii"),
        ("HTTPS://user:TOKEN@host:8443/a.nii?X=TOKEN", "HTTPS://host:8443/a.nii"),
        ("https://us@er:TOKEN@host/b@c.nii", "https://host/b@c.nii"),
        ("s3://KEY:TOKEN@bucket/a.nii", "s3://bucket/a.nii"),
        ("abfs://container@account/a.nii", "abfs://container@account/a.nii"),
        ("s3://bucket/sub@1/a.nii", "s3://bucket/sub@1/a.nii"),
        ("C:/TOKEN@a.nii", "C:/TOKEN@a.nii"),
    ],
)
def test_what_is_shown_of_an_address_has_no_secret_and_all_else(
    address: str, expected: str
) -> None:
    assert addresses.shown(address) == expected


def fsspec_has(scheme: str) -> bool:
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError:
        return False
    return True


def test_a_container_that_stays_open_lies_on_this_machine() -> None:
    with pytest.raises(me.ConfigError, match=r"memory://bucket/scan\.ucv: .* on this machine"):
        me.open(f"memory://bucket/scan.ucv?{_SECRET}")


def test_a_batch_takes_addresses_from_its_list_and_leaves_out_what_is_done(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.txt").write_text(f"{server}/a/one.nii.gz?{_SECRET}\n{server}/b/two.nii.gz\n")
    command = ["batch", "compress", "--list", str(tmp_path / "list.txt"), "--lossless", "--json"]
    command += ["--out", str(tmp_path / "out")]
    assert main(command) == 0
    done = json.loads(capsys.readouterr().out)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.ucv")) == ["one.ucv", "two.ucv"]
    assert done["rows"][0]["source"] == f"{server}/a/one.nii.gz"
    assert "s3cr3t" not in (tmp_path / "out" / "batch.jsonl").read_text()
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["already_done"] == 2
