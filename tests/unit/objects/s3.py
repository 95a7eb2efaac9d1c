"""S3 over the wire, on loopback: moto within this process, versitygw where it is installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from pagestore.postgres.listening import free_ports

KEYS = {
    "AWS_ACCESS_KEY_ID": "someone",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_REGION": "us-east-1",
    "AWS_ALLOW_HTTP": "true",
}


@contextmanager
def moto() -> Iterator[dict[str, str]]:
    """The environment by which it is reached. It does one request at a time: as it is, it looks
    for a name and makes it in two steps."""
    app = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, app, threaded=False)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        yield {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}"}
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


_GO = Path(os.environ.get("GOPATH", Path.home() / "go"))
VERSITYGW = shutil.which("versitygw", path=f"{os.environ['PATH']}{os.pathsep}{_GO}/bin")
"""Where it is installed (``go install github.com/versity/versitygw/cmd/versitygw@latest``): an S3
server over a directory, many requests at a time."""


@contextmanager
def versitygw(root: Path) -> Iterator[dict[str, str]]:
    assert VERSITYGW is not None
    (root / "bucket").mkdir(parents=True)
    (port,) = free_ports(1)
    keys = ["--access", KEYS["AWS_ACCESS_KEY_ID"], "--secret", KEYS["AWS_SECRET_ACCESS_KEY"]]
    log = (root.parent / "versitygw.log").open("wb")
    command = [VERSITYGW, *keys, "--port", f"127.0.0.1:{port}", "posix", str(root)]
    server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        until_listening(port)
        yield {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    finally:
        server.terminate()
        server.wait()
        log.close()


def until_listening(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert time.monotonic() < deadline, "it does not listen"
            time.sleep(0.05)
        else:
            return


def make_bucket(environ: dict[str, str], name: str) -> None:
    request = urllib.request.Request(f"{environ['AWS_ENDPOINT_URL']}/{name}", method="PUT")
    with urllib.request.urlopen(request):
        pass
