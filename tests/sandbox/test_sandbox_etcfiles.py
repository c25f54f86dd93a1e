"""/etc/resolv.conf and /etc/hosts of a RUN (R06)."""

import pytest

from kpy.sandbox.etcfiles import hosts_file, nameservers, resolver_file


@pytest.fixture
def files(tmp_path):
    def make(content, behind=None):
        (tmp_path / "resolv.conf").write_text(content)
        if behind is not None:
            (tmp_path / "behind").write_text(behind)
        return nameservers(resolver_file(str(tmp_path / "resolv.conf"), str(tmp_path / "behind")))

    return make


def test_resolver(files):
    assert files("nameserver 10.0.0.1\nsearch x\n") == ["10.0.0.1"]
    assert files("nameserver 127.0.0.1\n") == ["127.0.0.1"]  # the network is the host's
    assert files("nameserver 127.0.0.53\noptions edns0\n", "nameserver 9.9.9.9\n") == ["9.9.9.9"]
    assert files("", "nameserver 9.9.9.9\n") == ["8.8.8.8", "8.8.4.4"]


def test_stub_without_a_file_behind_is_kept(files):
    assert files("nameserver 127.0.0.53\n") == ["127.0.0.53"]


def test_no_file():
    assert nameservers(resolver_file("/does/not/exist", "/nor/this")) == ["8.8.8.8", "8.8.4.4"]


def test_hosts():
    assert hosts_file([("db", "10.0.0.7"), ("six", "fe80::1")], "me") == (
        b"127.0.0.1\tlocalhost me\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.7\tdb\nfe80::1\tsix\n"
    )
