"""Dockerfiles to plans with images in memory, for the tests of the planner."""

from typing import Any

from kpy.dockerfile.parser import parse
from kpy.oci.config import RuntimeConfig
from kpy.oci.platform import Platform
from kpy.plan.convert import convert
from kpy.plan.model import CopyOp, Op, Plan, PlanOptions, RunOp, Step, Target
from tests.fakes import KnownImages

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


def base(runtime: RuntimeConfig = RuntimeConfig(env=("PATH=/bin",)), **more: RuntimeConfig) -> KnownImages:
    """Images `base` and those of the keywords."""
    images = KnownImages()
    for name, config in {"base": runtime, **more}.items():
        images.add(name, config)
    return images


def planned(text: str, images: KnownImages | None = None, **options: Any) -> Plan:
    """The plan of a Dockerfile. `build_args`, `labels` may be dicts."""
    for name in ("build_args", "labels"):
        if isinstance(options.get(name), dict):
            options[name] = tuple(options[name].items())
    options.setdefault("build_platform", AMD64)
    return convert(parse(text.encode()), PlanOptions(**options), images or base())


def target(text: str, images: KnownImages | None = None, **options: Any) -> Target:
    """The only target."""
    (found,) = planned(text, images, **options).targets
    return found


def histories(text: str, images: KnownImages | None = None, **options: Any) -> list[str]:
    """What the build adds to the history."""
    return [item.created_by for item in target(text, images, **options).history]


def steps_of(plan: Plan, kind: type[Op]) -> list[Step]:
    """The steps with such an operation."""
    return [step for step in plan.steps if isinstance(step.op, kind)]


def runs(text: str, images: KnownImages | None = None, **options: Any) -> list[RunOp]:
    """The RUNs that the plan has."""
    return [step.op for step in planned(text, images, **options).steps if isinstance(step.op, RunOp)]


def copies(text: str, images: KnownImages | None = None, **options: Any) -> list[CopyOp]:
    """The COPYs and ADDs that the plan has."""
    return [step.op for step in planned(text, images, **options).steps if isinstance(step.op, CopyOp)]


def env_of(run: RunOp) -> dict[str, str]:
    """The variables of a RUN, without PATH."""
    return {name: value for name, _, value in (item.partition("=") for item in run.env) if name != "PATH"}
