"""What a RUN asks for and this build or environment cannot give: said before the first step, and not after twenty
minutes (R10-R12, R19)."""

from collections.abc import Sequence

from kpy.errors import KpyError, SandboxError, UsageError
from kpy.plan.model import RunOp, Step
from kpy.solver.mounts import planned_mounts
from kpy.solver.run import make_process
from kpy.solver.values import Services

NETWORK_HOST = "network.host"


def check_runs(steps: Sequence[Step], services: Services) -> None:
    """Refuse what cannot be honoured: flags, mounts, networks, the sandbox itself.

    Raises SandboxError or UsageError that shows the instruction.
    """
    for step in steps:
        if not isinstance(step.op, RunOp):
            continue
        try:
            _check(step.op, services)
        except KpyError as error:
            if step.span is not None:
                step.span.blame(error, step=step.name)
            raise


def _check(op: RunOp, services: Services) -> None:
    if op.security:
        raise SandboxError(
            f"RUN --security={op.security} is not supported: kpy has no rights to give that the user does not have",
            hint="leave the flag out, or build this image as root with a builder that has the entitlement security.insecure",
        )
    if op.devices:
        raise SandboxError(
            f"RUN --device={op.devices[0]} is not supported: kpy gives no devices to a RUN",
            hint="leave the flag out, or use a builder with CDI and the entitlement device",
        )
    if op.network == "host" and NETWORK_HOST not in services.allow:
        raise UsageError("RUN --network=host is not allowed", hint=f"allow it with --allow {NETWORK_HOST}")
    _, sandbox = services.strategy()
    sandbox.check(make_process(op, ()), planned_mounts(op))
