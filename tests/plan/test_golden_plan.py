"""Golden: the plan of tests/golden/*/Dockerfile. To write plan.txt anew: `python -m tests.plan.test_golden_plan`.

`options.json` beside a Dockerfile gives the command line (build_args, target, platforms, labels, contexts, …) and, as
`images`, the configurations of images; every other image that a case names is one with nothing but a PATH.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from kpy.dockerfile.parser import parse
from kpy.errors import KpyError
from kpy.oci import config
from kpy.oci.image import Image
from kpy.oci.platform import Platform
from kpy.plan.convert import convert
from kpy.plan.dump import dump
from kpy.plan.model import BaseImage, PlanOptions
from tests.fakes import KnownImages

CASES = sorted((Path(__file__).parent.parent / "golden").glob("*/Dockerfile"))


class AnyImage(KnownImages):
    """Knows every image: those that a case describes, and for any other name one with a PATH for any platform."""

    def __init__(self, described: dict[str, Any]) -> None:
        super().__init__()
        self.described = described

    def __call__(self, name: str, platform: Platform) -> BaseImage:
        if platform not in self.images.get(name, {}):
            self.make(name, platform)
        return super().__call__(name, platform)

    def make(self, name: str, platform: Platform) -> Image:
        raw = json.dumps({"config": self.described.get(name, {"Env": ["PATH=/bin"]})}).encode()
        return self.add(name, config.parse(raw).runtime, platform=platform)


def actual(path: Path) -> str:
    extra = path.with_name("options.json")
    given = json.loads(extra.read_text(encoding="utf-8")) if extra.exists() else {}
    options = PlanOptions(
        build_args=tuple(given.get("build_args", {}).items()),
        target=given.get("target", ""),
        labels=tuple(given.get("labels", {}).items()),
        build_platform=Platform("linux", "amd64"),
        platforms=tuple(Platform.parse(text) for text in given.get("platforms", [])),
        contexts=tuple((name, kind, value) for name, (kind, value) in given.get("contexts", {}).items()),
        hosts=tuple(given.get("hosts", {}).items()),
        network=given.get("network", ""),
    )
    try:
        return dump(convert(parse(path.read_bytes()), options, AnyImage(given.get("images", {}))))
    except KpyError as error:
        line = getattr(error, "first_line", 0)
        return f"error line {line}: {error.message}\n" + (f"hint {error.hint}\n" if error.hint else "")


def test_there_are_cases() -> None:
    assert len(CASES) >= 30


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.parent.name)
def test_golden(path: Path) -> None:
    assert actual(path) == path.with_name("plan.txt").read_text(encoding="utf-8")


if __name__ == "__main__":
    for case in CASES:
        case.with_name("plan.txt").write_text(actual(case), encoding="utf-8")
