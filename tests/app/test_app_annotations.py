"""--annotation: which manifest gets it, and what there is no place for (2, FEATURES)."""

import pytest

from kpy.app import annotations
from kpy.app.options import Annotation
from kpy.errors import UsageError
from kpy.oci.platform import Platform

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
ALL = (
    Annotation("a", "1"), Annotation("a", "2", platform=ARM64), Annotation("b", "x", "index"), Annotation("c", "y", "manifest-descriptor", AMD64),
    Annotation("d", "z", "index-descriptor"), Annotation("e", "1"), Annotation("e", "2"),
)  # fmt: skip


def test_who_gets_what() -> None:
    annotations.check(ALL, [AMD64, ARM64])
    assert annotations.of(ALL, "manifest", AMD64) == {"a": "1", "e": "2"}
    assert annotations.of(ALL, "manifest", ARM64) == {"a": "2", "e": "2"}
    assert annotations.of(ALL, "index") == {"b": "x"}
    assert annotations.of(ALL, "manifest-descriptor", AMD64) == {"c": "y"}
    assert annotations.of(ALL, "manifest-descriptor", ARM64) == {}
    assert annotations.of(ALL, "index-descriptor") == {"d": "z"}


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (Annotation("a", "", "index"), "--annotation index:a: the result is one platform, and has no index"),
        (Annotation("a", "", "index-descriptor"), "has no index"),
        (Annotation("a", "", "manifest", ARM64), r"--annotation manifest\[linux/arm64\]:a: the build is not for linux/arm64"),
    ],
)
def test_what_has_no_place_is_an_error(item: Annotation, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        annotations.check([item], [AMD64])


def test_an_index_has_no_platform() -> None:
    with pytest.raises(UsageError, match="an index is of no platform"):
        annotations.check([Annotation("a", "", "index", AMD64)], [AMD64, ARM64])
