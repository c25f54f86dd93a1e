"""config.json and its relatives, and credential helpers (N05, N06, N08)."""

import base64
import json
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpy.errors import AuthenticationError, UsageError
from kpy.registry.credentials import Credentials, HelperMissingError, decode_auth, normalise_key, run_helper


def b64(text):
    return base64.b64encode(text.encode()).decode()


def of(config, helper=None):
    others = {"helper": helper} if helper else {}
    return Credentials([("config.json", json.dumps(config).encode())], **others)


def pair(credential):
    return (credential.username, credential.password) if credential else None


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "https://index.docker.io/v1", "docker.io", "index.docker.io"])
def test_docker_hub_has_many_names(key):  # N05
    found = of({"auths": {key: {"auth": b64("me:a:b")}}}).find("docker.io", "library/alpine")
    assert pair(found) == ("me", "a:b")


def test_docker_desktops_token_entries_are_no_passwords():
    config = {"auths": {"https://index.docker.io/v1/access-token": {"auth": b64("a:b")}}}
    assert of(config).find("docker.io") is None


@pytest.mark.parametrize("key", ["reg.io:5000", "https://reg.io:5000", "http://reg.io:5000/v2/", "REG.io:5000", "reg.io:5000/v1/"])
def test_keys_of_other_registries(key):
    found = of({"auths": {key: {"username": "u", "password": "p"}}})
    assert pair(found.find("reg.io:5000", "x")) == ("u", "p")
    assert found.find("reg.io", "x") is None
    assert found.find("evil-reg.io:5000", "x") is None


def test_the_most_specific_key_wins():  # N05
    entries = {"r.io": "host", "r.io/team": "team", "r.io/team/app": "app"}
    found = of({"auths": {key: {"auth": b64(f"{user}:p")} for key, user in entries.items()}})
    names = [found.find("r.io", name).username for name in ("team/app", "team/app/sub", "team/other", "teams/app", "")]
    assert names == ["app", "app", "team", "host", "host"]


def test_tokens():  # N05
    found = of({"auths": {"r.io": {"identitytoken": "i", "auth": ""}, "s.io": {"registrytoken": "t"}, "e.io": {}}})
    assert found.find("r.io").identity_token == "i"
    assert found.find("s.io").registry_token == "t"
    assert found.find("e.io") is None


def test_helpers(tmp_path):  # N06
    asked = []

    def helper(name, server):
        asked.append((name, server))
        return {"r.io": ("u", "p"), "https://index.docker.io/v1/": ("<token>", "tok")}.get(server)

    found = of({"credHelpers": {"r.io": "one"}, "credsStore": "all", "auths": {"r.io": {}, "docker.io": {}}}, helper)
    assert pair(found.find("r.io", "a/b")) == ("u", "p")
    assert found.find("docker.io", "library/x").identity_token == "tok"
    assert found.find("other.io") is None
    assert asked == [("one", "r.io"), ("all", "https://index.docker.io/v1/"), ("all", "other.io")]


def test_a_missing_helper(tmp_path):
    def helper(name, server):
        raise HelperMissingError("missing")

    assert of({"credsStore": "desktop"}, helper).find("r.io") is None
    with pytest.raises(AuthenticationError):
        of({"credHelpers": {"r.io": "ecr-login"}}, helper).find("r.io")


@pytest.fixture
def helper_program(tmp_path, monkeypatch):
    def make(script):
        path = tmp_path / "docker-credential-test"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return make


def test_the_helper_protocol(helper_program):  # N06
    helper_program('read server; [ "$1" = get ] && echo "{\\"ServerURL\\":\\"$server\\",\\"Username\\":\\"$server\\",\\"Secret\\":\\"s\\"}"')
    assert run_helper("test", "r.io") == ("r.io", "s")
    helper_program("echo credentials not found in native keychain; exit 1")
    assert run_helper("test", "r.io") is None
    for script in ("echo the keychain is locked; exit 1", "echo nonsense", "echo []", "true"):
        helper_program(script)
        with pytest.raises(AuthenticationError, match="docker-credential-test"):
            run_helper("test", "r.io")


@pytest.mark.parametrize("name", ["../evil", "a/b", "", "-x", "a b", "x" * 99])
def test_helper_names_are_no_paths(name):
    with pytest.raises(AuthenticationError, match="invalid credential helper name"):
        run_helper(name, "r.io")


def test_files_are_merged(tmp_path):  # N08
    first, second = tmp_path / "auth.json", tmp_path / "config.json"
    first.write_text(json.dumps({"auths": {"a.io": {"auth": b64("first:p")}}}))
    second.write_text(json.dumps({"auths": {"a.io": {"auth": b64("second:p")}, "b.io": {"auth": b64("second:p")}}}))
    (tmp_path / "empty.json").write_text("")
    text = ("DOCKER_AUTH_CONFIG", json.dumps({"auths": {"c.io": {"auth": b64("text:p")}}}))
    found = Credentials.load([tmp_path / "nosuch", tmp_path / "empty.json", first, second], [text, ("unset", "")])
    assert [found.find(name).username for name in ("a.io", "b.io", "c.io")] == ["first", "second", "text"]
    assert found.find("c.io").source == "DOCKER_AUTH_CONFIG"
    assert found.find("a.io").source == str(first)


def test_dockercfg():  # kubernetes.io/dockercfg secrets
    assert pair(of({"r.io": {"auth": b64("u:p"), "email": "e"}}).find("r.io")) == ("u", "p")


@pytest.mark.parametrize("raw", [b"{", b"[]", b"5", b"[" * 99999, b"\xff"])
def test_what_is_no_config(raw):
    with pytest.raises(UsageError, match="credentials in bad.json"):
        Credentials([("bad.json", raw)])


@pytest.mark.parametrize("auth", ["%%%", b64("nocolon"), b64("u:p\nInjected: x"), "w6k"[:1]])
def test_bad_auth_fields_are_named_without_showing_them(auth):
    with pytest.raises(UsageError) as caught:
        of({"auths": {"r.io": {"auth": auth}}})
    assert "r.io in config.json" in caught.value.message
    assert "nocolon" not in caught.value.message


@pytest.mark.parametrize("config", [{"auths": []}, {"auths": {"r.io": 5}}, {"auths": {"r.io": {"auth": 5}}}, {"credHelpers": 5, "credsStore": 5}])
def test_odd_configs_hold_nothing(config):
    assert of(config).find("r.io") is None


def test_unreadable_files(tmp_path):
    with pytest.raises(UsageError, match="cannot read the credentials"):
        Credentials.load([tmp_path])


def test_repr_is_harmless():
    found = of({"auths": {"r.io": {"auth": b64("user:s3cret"), "identitytoken": "t0ken"}}})
    assert "s3cret" not in repr(found) + repr(found.find("r.io"))
    assert "t0ken" not in repr(found.find("r.io"))


@given(st.text(st.characters(blacklist_characters=":\0\n\r", codec="utf-8"), min_size=1), st.text(st.characters(blacklist_characters="\0\n\r", codec="utf-8")))
def test_auth_round_trips(user, password):
    assert decode_auth("f", "k", b64(f"{user}:{password}").rstrip("=")) == (user, password)


def test_keys():
    assert normalise_key("https://r.io/some/path") == "r.io"
    assert normalise_key("r.io/some/path/") == "r.io/some/path"
    assert normalise_key("docker.io/me") == "docker.io/me"
