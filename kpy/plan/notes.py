"""What planning learns besides the plan: findings of the build checks, and the stages that were planned."""

from dataclasses import dataclass, field

from kpy.dockerfile.lint.rules import Finding
from kpy.plan.state import StageState


@dataclass
class Notes:
    """Filled while planning goes on, so that it says something also when planning fails."""

    findings: list[Finding] = field(default_factory=list)
    stages: dict[int, StageState] = field(default_factory=dict)
