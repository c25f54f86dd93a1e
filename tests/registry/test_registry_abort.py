"""Requests under way end when the build does (issue 2, 7)."""

import threading
import time

import pytest

from kpy.errors import InterruptedBuildError
from kpy.oci.reference import Reference
from kpy.registry.client import RegistryClient
from tests.registry_server import Delay, RegistryServer


def test_a_request_that_nobody_answers_ends_at_once() -> None:
    with RegistryServer() as server, RegistryClient() as client:
        server.fault(Delay(8), path="/manifests/", times=9)
        threading.Timer(0.2, client.abort).start()
        began = time.monotonic()
        with pytest.raises(InterruptedBuildError):
            client.repository(Reference.parse(f"{server.host}/app:1")).resolve("1")
        assert time.monotonic() - began < 5
        with pytest.raises(InterruptedBuildError):
            client.repository(Reference.parse(f"{server.host}/app:1")).resolve("1")
