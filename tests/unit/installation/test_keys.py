"""An installation's keys and tokens: made once, changed without a pause, for its owner alone."""

from __future__ import annotations

import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pagestore.errors import DataLoss, FailedPrecondition, Unauthenticated
from pagestore.installation import certificates, config, keys
from pagestore.installation.commands import part_command
from pagestore.installation.layout import Installation
from pagestore.installation.lifecycle import check_addresses
from pagestore.tokens import Scope, Verifier, parse_public_keys


def verifier(data: Path) -> Verifier:
    return Verifier(parse_public_keys((data / keys.PUBLIC_KEYS).read_text()))


def tokens(data: Path) -> dict[str, str]:
    return {path.name: path.read_text().strip() for path in (data / "tokens").iterdir()}


def test_each_part_has_its_own_and_the_control_plane_the_operators(tmp_path: Path) -> None:
    keys.settle(tmp_path)
    scopes = {
        verb: verifier(tmp_path)
        .verify((tmp_path / keys.token_file(verb)).read_text().strip(), time.time())
        .scope
        for verb in ("control", "pageserver", "safekeeper", "proxy", "compute")
    }
    assert scopes == {
        "control": Scope.OPERATOR,
        "pageserver": Scope.PAGESERVER,
        "safekeeper": Scope.SAFEKEEPER,
        "proxy": Scope.PROXY,
        "compute": Scope.COMPUTE_AGENT,
    }


def test_they_are_for_their_owner_alone(tmp_path: Path) -> None:
    keys.settle(tmp_path)
    for folder in ("keys", "tokens"):
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == 0o700
        for path in (tmp_path / folder).iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_they_stay_from_one_up_to_the_next(tmp_path: Path) -> None:
    keys.settle(tmp_path)
    before = tokens(tmp_path), (tmp_path / keys.SIGNING_KEY).read_bytes()
    keys.settle(tmp_path)
    assert (tokens(tmp_path), (tmp_path / keys.SIGNING_KEY).read_bytes()) == before


def test_a_lost_or_damaged_token_is_made_anew(tmp_path: Path) -> None:
    keys.settle(tmp_path)
    (tmp_path / "tokens/proxy").write_text(tokens(tmp_path)["pageserver"])
    (tmp_path / "tokens/operator").write_bytes(b"\xff nonsense")
    (tmp_path / "tokens/safekeeper").unlink()
    keys.settle(tmp_path)
    check = verifier(tmp_path)
    for name, scope in (("operator", 1), ("safekeeper", 3), ("proxy", 4)):
        assert check.verify(tokens(tmp_path)[name], time.time()).scope == scope


def test_a_change_of_keys_leaves_the_last_ones_tokens_good_until_the_next(tmp_path: Path) -> None:
    keys.settle(tmp_path)
    first = tokens(tmp_path)["operator"]
    keys.change(tmp_path)
    second = tokens(tmp_path)["operator"]
    assert first != second
    for token in (first, second):
        assert verifier(tmp_path).verify(token, time.time()).scope is Scope.OPERATOR
    keys.change(tmp_path)
    assert verifier(tmp_path).verify(second, time.time()).scope is Scope.OPERATOR
    with pytest.raises(Unauthenticated):
        verifier(tmp_path).verify(first, time.time())


def test_a_change_that_was_cut_short_between_its_files_is_made_good(tmp_path: Path) -> None:
    keys.settle(tmp_path)
    secret = (tmp_path / keys.SIGNING_KEY).read_bytes()
    keys.change(tmp_path)
    (tmp_path / keys.SIGNING_KEY).write_bytes(secret)
    keys.settle(tmp_path)
    token = tokens(tmp_path)["operator"]
    assert verifier(tmp_path).verify(token, time.time()).scope is Scope.OPERATOR


def test_a_lost_key_is_named_and_a_damaged_one_too(tmp_path: Path) -> None:
    keys.settle(tmp_path)
    (tmp_path / keys.SIGNING_KEY).write_text("nonsense")
    with pytest.raises(DataLoss) as damaged:
        keys.settle(tmp_path)
    assert damaged.value.reason == "FILE_CORRUPT"
    (tmp_path / keys.SIGNING_KEY).unlink()
    with pytest.raises(FailedPrecondition) as lost:
        keys.settle(tmp_path)
    assert lost.value.reason == "KEY_LOST"


def test_an_address_of_other_machines_is_refused_before_anything_starts(tmp_path: Path) -> None:
    config.write_first(tmp_path / "pagestore.toml")
    text = (tmp_path / "pagestore.toml").read_text()
    (tmp_path / "pagestore.toml").write_text(
        text.replace('[pageserver]\nlisten = "127.0.0.1:', '[pageserver]\nlisten = "0.0.0.0:')
    )
    with pytest.raises(FailedPrecondition) as refused:
        check_addresses(Installation(tmp_path))
    assert refused.value.reason == "TLS_REQUIRED"
    certificates.make(tmp_path, ["0.0.0.0"])
    check_addresses(Installation(tmp_path))
    words = part_command(Installation(tmp_path), "safekeeper")
    for option, name in (
        ("--tls-certificate", "certificate.pem"),
        ("--tls-key", "key.pem"),
        ("--tls-authority", "authority.pem"),
    ):
        assert words[words.index(option) + 1] == str(tmp_path / "tls" / name)


def test_several_at_once_make_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: keys.settle(tmp_path), range(8)))
    check = verifier(tmp_path)
    for name, token in tokens(tmp_path).items():
        assert check.verify(token, time.time()), name
