"""Runs the steps of a plan: side by side where the strategy can, in order where it cannot (F11)."""

from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait

from kpy.errors import ContentError, InterruptedBuildError
from kpy.events import StepFinished, StepStarted
from kpy.plan.model import Plan, RunOp, Step
from kpy.solver.check import check_runs
from kpy.solver.execute import execute
from kpy.solver.values import Services, Value
from kpy.util.threads import Pool


def solve(plan: Plan, services: Services) -> Mapping[str, Value]:
    """The value of every step. The first failure stops the others and is raised once they have ended.

    If it was a broken blob in the store, that is removed, and everything done again: what made or needed it is no longer
    cached, the rest is.
    """
    steps = {step.id: step for step in plan.steps}
    jobs = services.jobs
    if any(isinstance(step.op, RunOp) for step in plan.steps):
        check_runs(plan.steps, services)
        jobs = min(jobs, services.strategy()[0].capacity)
    values = None
    while values is None:
        values = _in_order(plan, services) if jobs <= 1 else _Scheduler(steps, services).run(jobs)
    return values


def _in_order(plan: Plan, services: Services) -> Mapping[str, Value] | None:
    """All values; None if something was broken and has been removed."""
    values: dict[str, Value] = {}
    try:
        for step in plan.steps:
            values[step.id] = _do(step, values, services)
    except ContentError:
        if not services.layers.repair():
            raise
        return None
    return values


def _do(step: Step, values: Mapping[str, Value], services: Services) -> Value:
    services.cancel.check()
    services.report(StepStarted(step.id, step.name))
    try:
        outcome = execute(step, [values[ident] for ident in step.inputs], services)
    except BaseException as error:
        services.report(StepFinished(step.id, "failed", str(error)))
        raise
    services.report(StepFinished(step.id, "cached" if outcome.cached else "done"))
    return outcome.value


class _Scheduler:
    """Starts a step as soon as its inputs are there; steps that became ready first go first."""

    def __init__(self, steps: Mapping[str, Step], services: Services) -> None:
        self.steps = steps
        self.services = services
        self.values: dict[str, Value] = {}
        self.waiting = {ident: set(step.inputs) for ident, step in steps.items()}

    def run(self, jobs: int) -> Mapping[str, Value] | None:
        """All values, or the first error; None if something was broken and has been removed."""
        failure: BaseException | None = None
        again = False
        running: dict[Future[Value], str] = {}
        with Pool(jobs, thread_name_prefix="step") as pool:
            try:
                self._start(pool, running)
                while running:
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in [item for item in running if item in done]:  # in the order of their start
                        ident = running.pop(future)
                        error = future.exception()
                        # Several steps may have met the same broken blob; only the first finds it still there.
                        if isinstance(error, ContentError) and (self.services.layers.repair() or again):
                            again = True  # and no cancel: what the others make now will be cached then
                            continue
                        if error is not None:
                            failure = _first(failure, error)
                            self.services.cancel.set()
                            continue
                        self.values[ident] = future.result()
                        for left in self.waiting.values():
                            left.discard(ident)
                    if failure is None and not again:
                        self._start(pool, running)
            except BaseException:  # Ctrl-C in this thread: end the others before it goes up
                self.services.cancel.set()
                raise
        if failure is not None:
            raise failure
        return None if again else self.values

    def _start(self, pool: Pool, running: dict[Future[Value], str]) -> None:
        for ident in [ident for ident, left in self.waiting.items() if not left]:
            del self.waiting[ident]
            running[pool.submit(_do, self.steps[ident], self.values, self.services)] = ident


def _first(known: BaseException | None, new: BaseException) -> BaseException:
    """The error to show: the first, but an interruption only when there is no other reason."""
    if known is None or (isinstance(known, InterruptedBuildError) and not isinstance(new, InterruptedBuildError)):
        return new
    return known
