"""Keeping and forgetting credentials (kpy login, logout)."""

import json
import stat

import pytest

from kpy.errors import UsageError
from kpy.registry.credentials import Credential, Credentials
from kpy.registry.login import erase, store


@pytest.mark.parametrize("registry", ["docker.io", "r.io", "localhost:5000"])
def test_what_is_stored_is_found_and_forgotten(tmp_path, registry):
    path = tmp_path / "docker" / "config.json"
    assert store(path, registry, Credential("me", "pass:wörd")) == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = Credentials.load([path]).find(registry, "x/y")
    assert (found.username, found.password) == ("me", "pass:wörd")
    assert erase(path, registry)
    assert not erase(path, registry)
    assert Credentials.load([path]).find(registry) is None


def test_other_keys_survive_and_links_stay(tmp_path):
    real, path = tmp_path / "real.json", tmp_path / "config.json"
    real.write_text(json.dumps({"psFormat": "x", "auths": {"https://r.io/v1/": {"auth": "b2xkOm9sZA=="}, "s.io": {}}}))
    path.symlink_to(real)
    store(path, "r.io", Credential("me", "new"))
    data = json.loads(real.read_text())
    assert path.is_symlink()
    assert data["psFormat"] == "x"
    assert sorted(data["auths"]) == ["r.io", "s.io"]


def test_helpers_keep_it(tmp_path, monkeypatch):
    program = tmp_path / "docker-credential-test"
    program.write_text(f'#!/bin/sh\n[ "$1" = get ] || echo "$1 $(cat)" >> {tmp_path}/log\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    path = tmp_path / "config.json"
    path.write_text('{"credsStore": "test"}')
    assert store(path, "r.io", Credential("me", "s3cret")) == "credential helper test"
    assert erase(path, "r.io")
    log = (tmp_path / "log").read_text().splitlines()
    assert json.loads(log[0].removeprefix("store ")) == {"ServerURL": "r.io", "Username": "me", "Secret": "s3cret"}
    assert log[1] == "erase r.io"
    assert "s3cret" not in path.read_text()


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": []}', '{"auths": 5}', '{"credsStore": "../x"}'])
def test_broken_files_are_not_overwritten(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text)
    if text == '{"auths": []}':
        store(path, "r.io", Credential("me", "x"))  # empty is as good as nothing
        return
    with pytest.raises(UsageError):
        store(path, "r.io", Credential("me", "x"))
    assert path.read_text() == text
