"""sigv4.py against the examples that AWS publishes: S3's "Authenticating Requests", IAM's "Deriving the signing key", and
get-vanilla of the signature test suite."""

from datetime import UTC, datetime

import pytest

from kpy.buildcontext.sigv4 import AwsKey, Scope, sign, signing_key

EXAMPLE = AwsKey("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
DAY = datetime(2013, 5, 24, tzinfo=UTC)


def signature(headers: dict[str, str]) -> str:
    return headers["Authorization"].rpartition("Signature=")[2]


@pytest.mark.parametrize(
    ("path", "headers", "expected"),
    [
        ("/test.txt", {"Range": "bytes=0-9"}, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
        ("/?lifecycle", {}, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        ("/?max-keys=2&prefix=J", {}, "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
    ],
)
def test_the_examples_of_s3(path: str, headers: dict[str, str], expected: str) -> None:
    found = sign("GET", f"https://examplebucket.s3.amazonaws.com{path}", headers, EXAMPLE, Scope("us-east-1"), DAY)
    assert signature(found) == expected
    assert found["X-Amz-Date"] == "20130524T000000Z"
    names = "host;range;x-amz-content-sha256;x-amz-date" if headers else "host;x-amz-content-sha256;x-amz-date"
    assert found["Authorization"].startswith(
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
        f"SignedHeaders={names},Signature="
    )


def test_the_signing_key_of_the_documentation() -> None:
    found = signing_key("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "20120215", Scope("us-east-1", "iam"))
    assert found.hex() == "f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d"


def test_get_vanilla_of_the_test_suite() -> None:
    key = AwsKey("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
    when = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
    found = sign("GET", "https://example.amazonaws.com/", {}, key, Scope("us-east-1", "service"), when)
    assert signature(found) == "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"


def test_a_temporary_key_sends_its_token() -> None:
    key = AwsKey("A", "s", "token")
    found = sign("GET", "https://b.s3.eu-west-1.amazonaws.com/k", {}, key, Scope("eu-west-1"), DAY)
    assert found["X-Amz-Security-Token"] == "token"
    assert "x-amz-security-token" in found["Authorization"]
    assert "token" not in repr(key)
    assert "'s'" not in repr(key)
