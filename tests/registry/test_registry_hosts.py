"""Which scheme, which trust (N19, N20), and what is said when it does not work."""

import pytest

from kpy.errors import RegistryError
from kpy.oci.reference import Reference
from kpy.registry.hosts import Endpoint, Hosts, is_loopback
from kpy.util.http import Timeouts, join, redact
from kpy.util.proxies import Proxies
from kpy.util.trust import Trust
from tests.registry.served import add_image
from tests.registry_server import RegistryServer, Status


def schemes(hosts, registry):
    return [(item.scheme, item.verify) for item in hosts.candidates(registry)]


def test_the_hub_has_an_endpoint():
    assert Hosts().candidates("docker.io") == (Endpoint("docker.io", "https", "registry-1.docker.io"),)


@pytest.mark.parametrize("host", ["localhost", "localhost:5000", "127.0.0.1", "127.9.9.9:1", "[::1]:5000", "LOCALHOST"])
def test_loopback_is_plain_first(host):  # N19
    assert is_loopback(host)
    assert schemes(Hosts(), host) == [("http", False), ("https", False)]


@pytest.mark.parametrize("host", ["localhost.evil.io", "127.0.0.1.evil.io", "r.io", "10.0.0.1:5000", "[::2]:5000"])
def test_others_are_verified(host):  # N19
    assert not is_loopback(host)
    assert schemes(Hosts(insecure=("other.io", "r.io:444", "192.168.0.0/16")), host) == [("https", True)]


@pytest.mark.parametrize(("said", "host"), [("r.io", "r.io"), ("r.io", "r.io:5000"), ("r.io:5000", "R.io:5000"), ("10.0.0.0/8", "10.1.2.3:80")])
def test_insecure_tries_both(said, host):  # N19
    assert schemes(Hosts(insecure=(said,)), host) == [("https", False), ("http", False)]
    assert Hosts(insecure=("r.io:5000",)).is_insecure("r.io") is False


def resolve(connect, server, hosts=None):
    add_image(server, "app", "1")
    return connect(hosts).repository(Reference.parse(f"{server.host}/app:1")).resolve("1")


def test_loopback_with_tls(connect, authority):  # N19: docker counts 127.0.0.0/8 as insecure
    with RegistryServer(tls=authority.server) as server:
        assert resolve(connect, server)
        assert server.count("/v2/$") == 1


class Verified(Hosts):
    """As if 127.0.0.1 were any host."""

    __slots__ = ()

    def candidates(self, registry):
        return (Endpoint(registry, "https", registry),)


class Insecure(Hosts):
    __slots__ = ()

    def candidates(self, registry):
        return (Endpoint(registry, "https", registry, verify=False), Endpoint(registry, "http", registry, verify=False))


def test_a_ca_of_ones_own(connect, authority):  # N19
    with RegistryServer(tls=authority.server) as server:
        assert resolve(connect, server, Verified(ca_file=authority.ca_file))
        with pytest.raises(RegistryError, match="cannot make a secure connection to 127.0.0.1:") as caught:
            resolve(connect, server, Verified())
        assert "certificate" in caught.value.message
        assert "--insecure-registry 127.0.0.1:" in caught.value.hint


def test_a_plain_registry_that_was_not_said_to_be_one(connect, server, clock):
    with pytest.raises(RegistryError) as caught:
        resolve(connect, server, Verified(timeouts=Timeouts(2, 2)))
    assert "plain HTTP" in caught.value.hint
    assert clock.slept == []


@pytest.mark.parametrize("tls", [True, False])
def test_insecure_registries(connect, authority, tls):  # N19, no warning either
    with RegistryServer(tls=authority.server if tls else None) as server:
        assert resolve(connect, server, Insecure(timeouts=Timeouts(2, 2)))
        assert server.connections <= 2


def test_a_bad_ca_file(connect, server, tmp_path):
    for content in (None, "rubbish"):
        path = tmp_path / "ca.pem"
        if content:
            path.write_text(content)
        with pytest.raises(RegistryError, match="CA or client certificate"):
            resolve(connect, server, Verified(ca_file=str(path)))


def test_a_strange_but_plain_registry(connect, server):
    server.fault(Status(400), path="/v2/$")
    assert resolve(connect, server)


@pytest.mark.parametrize(
    ("url", "no_proxy", "used"),
    [
        ("https://r.io/v2/", "", "https"),
        ("http://r.io/v2/", "", "http"),
        ("https://r.io/", "r.io", ""),
        ("https://a.r.io/", ".r.io", ""),
        ("https://ar.io/", "r.io", "https"),
        ("https://r.io:5000/", "r.io:443", "https"),
        ("https://r.io:5000/", "x, r.io:5000", ""),
        ("https://10.1.2.3/", "10.0.0.0/8", ""),
        ("https://[::1]/", "::1", ""),
        ("https://r.io/", "*", ""),
    ],
)
def test_proxies(url, no_proxy, used):  # N20
    proxies = Proxies("http://user:pw@p:1", "http://user:pw@p:2", no_proxy)
    assert list(proxies.choose(url)) == ([used] if used else [])
    assert "pw" not in repr(proxies)


def test_a_proxy_that_is_not_there(connect, server):
    hosts = Verified(proxies=Proxies(https="http://127.0.0.1:9", http=""), timeouts=Timeouts(1, 1))
    with pytest.raises(RegistryError, match="through the proxy"):
        resolve(connect, server, hosts)


def test_redaction():
    assert redact("https://u:p@h:5/a?X-Sig=s3cret&b=c#f") == "https://h:5/a?X-Sig=…&b=…"
    assert redact("http://[") == "(invalid URL)"


@pytest.mark.parametrize("target", ["file:///x", "http://", "http://[", "http://h:99999", "javascript:x", "//"])
def test_urls_of_strangers(target):
    if target == "//":
        assert join("https://h/a", target)
        return
    with pytest.raises(ValueError):
        join("https://h/a", target)


def test_unverified_is_https_whatever_is_shown(connect, authority):
    assert schemes(Hosts(unverified=("r.io",)), "r.io:5000") == [("https", False)]
    assert schemes(Hosts(unverified=("*",)), "r.io:5000") == [("https", False)]
    assert schemes(Hosts(insecure=("*",)), "docker.io") == [("https", False), ("http", False)]
    assert schemes(Hosts(unverified=("r.io",), insecure=("r.io",)), "r.io") == [("https", False), ("http", False)]


def test_a_ca_for_one_host_alone(connect, authority):
    with RegistryServer(tls=authority.server) as server:
        assert resolve(connect, server, Verified(certificates=(("127.0.0.1", authority.ca_file),)))
        with pytest.raises(RegistryError, match="cannot make a secure connection"):
            resolve(connect, server, Verified(certificates=(("r.io", authority.ca_file),)))


def test_a_client_certificate_for_one_host_alone():
    hosts = Hosts(client_certificates=(("r.io", "c", "k"),), certificates=(("r.io:1", "a"),), ca_file="all")
    assert hosts.trust("r.io:1", verify=True) == Trust(True, ("all", "a"), "c", "k")
    assert hosts.trust("s.io:1", verify=True) == Trust(True, ("all",))
