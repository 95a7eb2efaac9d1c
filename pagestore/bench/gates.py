"""Plain Postgres, PgBouncer and our proxy before the same cluster, for the part ``proxy``.

All three ask their clients for SCRAM, with TLS for who wants it. Both proxies reach the cluster by
its Unix socket, which trusts them: our proxy enters a compute so, by the name of its user.
PgBouncer is Debian's, in session mode, without the lines that it logs for every connection.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pagestore.bench.harness import OURS, PLAIN, Bench
from pagestore.bench.lone_proxy import Settings
from pagestore.bench.plain import MAJOR, PlainCluster, give, pgbench, unprivileged
from pagestore.bench.sessions import DATABASE, PASSWORD, USER, Gate
from pagestore.bench.stack import wait_until
from pagestore.errors import PagestoreError
from pagestore.installation.layout import lib_dir
from pagestore.postgres import majors
from pagestore.postgres.listening import free_port, is_free

BOUNCER = "PgBouncer"
ONE_USE = f"{BOUNCER}, a server connection each"
_HBA = "local all all trust\nhost all postgres all trust\nhost all all all scram-sha-256\n"
_CONNECTIONS = 400
_BOUNCER_INI = """
[databases]
{database} = host={root} port={cluster_port} dbname={database}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
pool_mode = session
max_client_conn = 20000
default_pool_size = {connections}
server_lifetime = {lifetime}
client_tls_sslmode = allow
client_tls_cert_file = {certificate}
client_tls_key_file = {key}
log_connections = 0
log_disconnections = 0
log_stats = 0
"""


@dataclass(frozen=True)
class Site:
    """A running cluster, and what proxies before it need to know."""

    bench: Bench
    cluster: PlainCluster
    verifier: str
    certificate: Path
    key: Path

    @property
    def plain(self) -> Gate:
        return Gate(PLAIN, self.cluster.port)

    def load_pgbench(self, scale: int) -> None:
        pgbench(self.plain.url, "-i", "-q", "-s", scale)
        self.cluster.sql("CHECKPOINT")


@contextmanager
def site(bench: Bench) -> Iterator[Site]:
    """A cluster with the database and its role."""
    root = bench.place("certificate")
    root.mkdir()
    give(root)
    certificate, key = _make_certificate(root)
    settings = {"ssl": "on", "ssl_cert_file": certificate, "ssl_key_file": key}
    module = majors.place(lib_dir() / majors.library("session"), MAJOR)
    shutil.copy(module, root)
    settings["shared_preload_libraries"] = root / module.name
    settings["pagestore_session.key"] = "a secret of this run"
    with bench.plain(max_connections=_CONNECTIONS, **settings) as cluster:
        (cluster.data / "pg_hba.conf").write_text(_HBA)
        cluster.sql(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")
        cluster.sql(f"CREATE DATABASE {DATABASE} OWNER {USER}")
        cluster.sql("SELECT pg_reload_conf()")
        [[verifier]] = cluster.sql(f"SELECT rolpassword FROM pg_authid WHERE rolname = '{USER}'")
        yield Site(bench, cluster, str(verifier), certificate, key)


def _make_certificate(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "server.crt", folder / "server.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
        **unprivileged(),
    )
    return certificate, key


@contextmanager
def lone_proxy(found: Site, *, owns: bool = False, idle: float = 1e9) -> Iterator[Gate]:
    """Our proxy. With `owns` the cluster has to be stopped, and is started by the proxy."""
    settings = Settings(
        root=str(found.cluster.root),
        cluster_port=found.cluster.port,
        user=USER,
        verifier=found.verifier,
        database=DATABASE,
        certificate=str(found.certificate),
        key=str(found.key),
        owns=owns,
        idle=idle,
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "pagestore.bench.lone_proxy", json.dumps(asdict(settings))],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise PagestoreError("BENCH_FAILED", "The proxy did not start.")
        yield Gate(OURS, int(line), process.pid)
    finally:
        process.terminate()
        process.wait()


def bouncer_program() -> Path | None:
    """Where PgBouncer is on this machine; None where it is not installed."""
    found = shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    return Path(found) if found else None


def bouncer_version(program: Path) -> str:
    said = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=True)
    match = re.search(r"PgBouncer (\S+)", said.stdout)
    return match[1] if match else "?"


@contextmanager
def bouncer(program: Path, found: Site, *, one_use: bool = False) -> Iterator[Gate]:
    """PgBouncer. With `one_use` no client gets a server connection that another had."""
    folder = found.bench.place("bouncer")
    folder.mkdir()
    port = free_port()
    users = folder / "users"
    users.write_text(f'"{USER}" "{found.verifier}"\n')
    text = _BOUNCER_INI.format(
        database=DATABASE,
        root=found.cluster.root,
        cluster_port=found.cluster.port,
        port=port,
        users=users,
        connections=_CONNECTIONS - 20,
        lifetime=0 if one_use else 3600,
        certificate=found.certificate,
        key=found.key,
    )
    (folder / "bouncer.ini").write_text(text)
    for path in (folder, users, folder / "bouncer.ini"):
        give(path)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(program), str(folder / "bouncer.ini")], stderr=log, stdout=log, **unprivileged()
        )
    try:
        wait_until(lambda: not is_free(port) or process.poll() is not None, "PgBouncer", 20)
        if process.poll() is not None:
            raise PagestoreError("BENCH_FAILED", (folder / "log").read_text())
        yield Gate(ONE_USE if one_use else BOUNCER, port, process.pid)
    finally:
        process.kill()
        process.wait()
