"""Challenges, tokens and the ladder (N01-N04, N09) against the fake registry and by hand."""

import io
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpy.errors import AuthenticationError, RegistryError
from kpy.oci.reference import Reference
from kpy.registry.challenge import Challenge, format_scopes, parse, parse_scope, repository_scope
from kpy.registry.credentials import Credential, Credentials
from tests.registry.served import add_image
from tests.registry_server import Basic, Bearer, Headers, Redirect, RegistryServer, Status


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", []),
        ('Basic realm="x"', [("basic", {"realm": "x"})]),
        ("Basic", [("basic", {})]),
        (
            'Bearer realm="https://a/token",service="s",scope="repository:a/b:pull,push"',
            [("bearer", {"realm": "https://a/token", "service": "s", "scope": "repository:a/b:pull,push"})],
        ),
        ('Bearer realm = "a" , service = b', [("bearer", {"realm": "a", "service": "b"})]),
        (r'Digest realm="a\"b\\c", nonce="1"', [("digest", {"realm": 'a"b\\c', "nonce": "1"})]),
        ('Negotiate, Basic realm="x"', [("negotiate", {}), ("basic", {"realm": "x"})]),
        ('Negotiate YWJj==, Bearer realm="x"', [("negotiate", {}), ("bearer", {"realm": "x"})]),
        (
            'Basic realm="x", Bearer realm="y",service="z", Custom a=b',
            [("basic", {"realm": "x"}), ("bearer", {"realm": "y", "service": "z"}), ("custom", {"a": "b"})],
        ),
        (", ,Basic realm=x,,", [("basic", {"realm": "x"})]),
        ('Bearer realm="a",realm="b"', [("bearer", {"realm": "a"})]),
        ('Bearer realm="unfinished', [("bearer", {}), ("realm", {})]),
        ('"', []),
        ("BEARER REALM=a", [("bearer", {"realm": "a"})]),
    ],
)
def test_challenges(header, expected):  # N01
    assert [(item.scheme, dict(item.parameters)) for item in parse(header)] == expected


@given(st.text(st.sampled_from('abB ",=\\\t;é\0realm'), max_size=200) | st.text(max_size=200))
def test_challenges_of_rubbish(header):
    assert isinstance(parse(header), tuple)


def test_long_challenges_are_read_quickly():
    started = time.monotonic()
    for piece in ('a="', "a=b ", "a ", ", ", '\\"', " =", "Basic realm=x, "):
        parse(piece * 200_000)
    assert time.monotonic() - started < 2


_NAMES = st.from_regex(r"[a-z0-9]{1,5}(/[a-z0-9]{1,5}){0,2}", fullmatch=True)


@given(st.sets(st.tuples(st.just("repository"), _NAMES, st.sampled_from(["pull", "push", "delete"])), max_size=8))
def test_scopes_round_trip(scopes):  # N04
    assert parse_scope(" ".join(format_scopes(scopes))) == frozenset(scopes)


def test_scopes_of_rubbish():
    assert parse_scope("a:b c ::: repository:x: repository:host:5000/a:pull") == {("repository", "host:5000/a", "pull")}
    assert format_scopes(repository_scope("a", "push", "pull")) == ["repository:a:pull,push"]
    assert Challenge("basic") == Challenge("basic", {})


def login(server, **fields):
    entry = fields or {"username": "user", "password": "pass:word"}
    return {"auths": {server.host: entry}}


def client_for(server, connect, auth, config=None, **others):
    server.auth = auth
    add_image(server, "app", "1")
    return connect(config=config, **others).repository(Reference.parse(f"{server.host}/app:1"))


def test_basic(server, connect):  # N01
    assert client_for(server, connect, Basic(), login(server)).resolve("1")
    assert len(server.lines) == 2  # the probe brought the challenge


@pytest.mark.parametrize("auth", [Basic(), Bearer()])
def test_wrong_passwords(server, connect, auth, clock):
    repo = client_for(server, connect, auth, login(server, username="user", password="hunter2-wrong"))
    with pytest.raises(AuthenticationError) as caught:
        repo.resolve("1")
    assert f"{server.host} refused the credentials of config.json for app" in caught.value.message
    assert "docker login" in caught.value.hint
    assert "hunter2" not in str(vars(caught.value))
    assert clock.slept == []


@pytest.mark.parametrize("auth", [Basic(), Bearer()])
def test_no_credentials(server, connect, auth):
    with pytest.raises(AuthenticationError, match=r"wants credentials for app") as caught:
        client_for(server, connect, auth).resolve("1")
    assert f"docker login {server.host}" in caught.value.hint


def test_anonymous_tokens(server, connect):
    assert client_for(server, connect, Bearer(anonymous_pull=True)).resolve("1")
    assert server.count("/token") == 1


@pytest.mark.parametrize("expires_in", [None, 300])
def test_one_token_for_many_requests(server, connect, clock, expires_in):  # N03
    repo = client_for(server, connect, Bearer(expires_in=expires_in), login(server))
    for _ in range(5):
        assert repo.resolve("1")
    assert server.count("/token") == 1
    clock.now += 60 if expires_in is None else 290
    assert repo.resolve("1")
    assert server.count("/token") == 2


def test_revoked_tokens_are_replaced(server, connect, clock):  # N03
    repo = client_for(server, connect, Bearer(), login(server))
    assert repo.resolve("1")
    clock.now += 10
    server.revoke_tokens()
    assert repo.resolve("1")
    assert server.count("/token") == 2


def test_threads_want_one_token(server, connect):  # N03
    repo = client_for(server, connect, Bearer(), login(server))
    threads = [threading.Thread(target=repo.resolve, args=("1",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.count("/token") == 1
    assert server.count("HEAD") == 8


@pytest.mark.parametrize("config", ["post_only", "identity", "identity_get"])
def test_the_ladder(server, connect, config):  # N02
    match config:
        case "post_only":
            auth, entry = Bearer(post_only=True), {}
        case "identity":
            auth, entry = Bearer(identity_token="refresh-me"), {"identitytoken": "refresh-me"}
        case _:
            auth, entry = Bearer(identity_token="refresh-me", get_only=True), {"identitytoken": "refresh-me"}
    assert client_for(server, connect, auth, login(server, **entry)).resolve("1")
    lines = [line.partition("?")[0] for line in server.lines if "/token" in line]
    assert lines == {"post_only": ["GET /token", "POST /token"], "identity": ["POST /token"]}.get(
        config, ["POST /token", "GET /token"]
    )


def test_a_registry_token_is_used_as_it_is(server, connect):  # N05
    repo = client_for(server, connect, Bearer(), login(server, registrytoken="given"))
    server.tokens["given"] = (frozenset({"repository:app:pull"}), time.monotonic() + 60)
    assert repo.resolve("1")
    assert server.count("/token") == 0


def test_several_challenges(server, connect):  # N01
    prefix = 'Negotiate, Digest realm="d", Basic realm="b", '
    assert client_for(server, connect, Bearer(challenge_prefix=prefix), login(server)).resolve("1")


def test_basic_when_the_token_does_not_help(server, connect):  # N01: the ladder's last rung
    server.auth = Bearer(challenge_prefix='Basic realm="b", ')
    repo = client_for(server, connect, server.auth, login(server))
    server.grant = lambda scopes, full: {"token": "never-valid"}
    with pytest.raises(AuthenticationError, match="refused"):
        repo.resolve("1")
    assert any(item.headers.get("Authorization", "").startswith("Basic") for item in server.requests if "app" in item.path)


def test_more_scope_is_asked_for_when_the_registry_says_so(server, connect):  # N04
    repo = client_for(server, connect, Bearer(), login(server))
    assert repo.resolve("1")
    challenge = f'Bearer realm="{server.url}/token",service="fake",scope="repository:other:pull",error="insufficient_scope"'
    server.fault(Status(403, headers={"WWW-Authenticate": challenge}), path="/manifests/")
    assert repo.resolve("1")
    assert server.count(r"/token.*scope=repository%3Aapp%3Apull&scope=repository%3Aother%3Apull") == 1
    assert repo.resolve("1")
    assert server.count("/token") == 2


def test_401_without_a_challenge_is_asked_at_v2(server, connect):  # N01
    server.fault(Status(404), path="/v2/$")
    server.fault(Status(401), path="/manifests/")
    assert client_for(server, connect, Bearer(), login(server)).resolve("1")


def test_a_busy_token_server(server, connect, clock):
    repo = client_for(server, connect, Bearer(), login(server))
    server.fault(Status(503), path="/token", times=2)
    assert repo.resolve("1")
    assert clock.slept == [0.5, 1.5]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"token":5}', b'{"token":"a\\nb"}', b'{"token":""}', b"[" * 99999, b'{"token":"\xc3\xa9"}']
)
def test_hostile_token_servers(server, connect, body):
    repo = client_for(server, connect, Bearer(), login(server))
    server.fault(Status(200, body), path="/token", times=9)
    with pytest.raises(RegistryError, match="token server"):
        repo.resolve("1")


@pytest.mark.parametrize("realm", ["file:///etc/passwd", "/token", "http://", "http://[x", "http://h:99999/"])
def test_hostile_realms(server, connect, realm):
    repo = client_for(server, connect, None, login(server))
    server.fault(Status(401, headers={"WWW-Authenticate": f'Bearer realm="{realm}"'}), times=99)
    with pytest.raises(RegistryError, match="invalid token server"):
        repo.resolve("1")


def test_passwords_do_not_follow_redirects_of_the_token_server(server, connect):  # N09
    with RegistryServer(auth=Bearer(anonymous_pull=True)) as other:
        repo = client_for(server, connect, Bearer(), login(server))
        server.fault(Redirect(other.url + "{path}"), path="/token", times=9)
        with pytest.raises(AuthenticationError):
            repo.resolve("1")
        assert other.requests
        assert all("Authorization" not in item.headers for item in other.requests)


def test_uploads_elsewhere_get_no_authorization(server, connect):  # N09
    with RegistryServer() as other:
        repo = client_for(server, connect, Basic(), login(server))
        server.fault(Headers({"Location": f"{other.url}/v2/app/blobs/uploads/u1?x=y"}), method="POST")
        repo.put(io.BytesIO(b"x"))  # the second start leads to the registry itself
        assert other.requests
        assert all("Authorization" not in item.headers for item in other.requests)


def test_helper_passwords_that_ended_are_asked_for_again(server, connect):  # N06: ECR
    answers = iter([("user", "old"), ("user", "new")])
    credentials = Credentials(
        [("c.json", b'{"credHelpers":{"%s":"h"}}' % server.host.encode())], helper=lambda name, at: next(answers)
    )
    assert client_for(server, connect, Basic(password="new"), credentials=credentials).resolve("1")


def test_nothing_secret_is_shown():  # house style 19
    credential = Credential("me", "s3cret", "id3ntity", "r3gistry", "file")
    assert not any(word in repr(credential) for word in ("s3cret", "id3ntity", "r3gistry"))
