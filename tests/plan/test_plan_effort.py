"""effort.py: variables that contain each other take neither the memory nor the time of who builds."""

import time
import tracemalloc

import pytest

from kpy.dockerfile.parser import parse
from kpy.errors import DockerfileError, InterruptedBuildError
from kpy.plan.convert import convert
from kpy.plan.effort import Effort
from kpy.plan.model import PlanOptions
from tests.plan.planning import base, planned

X16 = "x" * 16


def chain(keyword: str, word: str, count: int = 40) -> str:
    """Each is made of the one before."""
    return f"{keyword} A0={X16}\n" + "".join(f"{keyword} A{number + 1}={word.format(f'A{number}')}\n" for number in range(count))


QUADRUPLE = "$%s$%s$%s$%s".replace("%s", "{0}")
GROWING = {
    "ENV": "FROM base\n" + chain("ENV", QUADRUPLE),
    "ENV in quotes": "FROM base\n" + chain("ENV", f'"{QUADRUPLE}"'),
    "ARG": "FROM base\n" + chain("ARG", QUADRUPLE),
    "global ARG": chain("ARG", QUADRUPLE) + "FROM base\n",
    "replacements": "FROM base\n" + chain("ENV", "${{{0}//x/" + X16 + "}}"),
    "one replacement": f"FROM base\nENV A0={'x' * 100_000}\nENV A1=${{A0//x/$A0}}\n",
    "between characters": f"FROM base\nENV A0={'x' * 100_000}\nENV A1=${{A0//*/$A0}}$A0${{A0//?/$A0}}\n",
    "a default": "FROM base\n" + chain("ENV", "${{none:-" + QUADRUPLE + "}}"),
    "a stage of a stage": "FROM base AS s\n" + chain("ENV", QUADRUPLE, 5) + "FROM s\n" + chain("ENV", QUADRUPLE, 9),
}


@pytest.mark.parametrize("what", GROWING)
def test_a_value_is_bounded(what: str) -> None:
    tracemalloc.start()
    begun = time.monotonic()
    try:
        with pytest.raises(DockerfileError, match=r"failed to process '\"?\$.*A.*': it expands to more than 1 MiB") as caught:
            planned(GROWING[what])
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
    assert caught.value.file == "Dockerfile"
    assert " A" in caught.value.excerpt.split(">>>")[1]
    assert time.monotonic() - begun < 20


MIB = f"ENV A={'x' * 1024}\nENV B=" + "$A" * 1000 + "\n"
TOGETHER = {
    "of a stage": (MIB + "".join(f"ENV C{number}=$B\n" for number in range(10)), "with C3, the variables of this stage have more than 4 MiB"),
    "in the history": (MIB + "ENV C=$B\n" * 100, "variables make more than 64 MiB"),
    "in labels": (MIB + "".join(f"LABEL C{number}=$B\n" for number in range(100)), "variables make more than 64 MiB"),
    "in files": (MIB + "COPY <<EOF /a\n$B\nEOF\n" * 100, "variables make more than 64 MiB"),
    "in sources": (MIB + "COPY $B /a\n" * 100, "variables make more than 64 MiB"),
    "in commands": (MIB + "RUN true\n" * 100, "variables make more than 64 MiB"),
    "in commands, of an ARG": (MIB + "ARG C=$B\n" + "RUN true\n" * 100, "variables make more than 64 MiB"),
    "in stages": (
        "".join(f"ENV A{number}=x\n" for number in range(1000)) + "".join(f"FROM s AS s{number}\n" for number in range(1000))
        + "FROM base\n" + "".join(f"COPY --from=s{number} a b\n" for number in range(1000)), "variables make more than 64 MiB",
    ),
}  # fmt: skip


@pytest.mark.parametrize("where", TOGETHER)
def test_all_values_together_are_bounded(where: str) -> None:
    text, message = TOGETHER[where]
    tracemalloc.start()
    try:
        with pytest.raises(DockerfileError, match=message) as caught:
            planned("FROM base AS s\n" + text)
        assert tracemalloc.get_traced_memory()[1] < 512 << 20
    finally:
        tracemalloc.stop()
    assert caught.value.first_line


def test_what_is_long_as_it_is_written_is_no_fault() -> None:
    body = "line $A\n" * 200_000
    (step,) = [step for step in planned(f"FROM base\nENV A=xx\nCOPY <<EOF /a\n{body}EOF\n").steps if step.name.startswith("[2/2]")]
    assert step.op.heredocs[0][1] == body.replace("$A", "xx")  # type: ignore[union-attr]


def test_slow_patterns_are_refused() -> None:
    text = f"FROM base\nENV A={'x' * 500_000}\nENV B=${{A%{'?' + 'x' * 250_000 + 'y'}*}}\n"
    begun = time.monotonic()
    with pytest.raises(DockerfileError, match=r"it is too long for such a long value") as caught:
        planned(text)
    assert len(caught.value.message) < 1000
    assert time.monotonic() - begun < 10


def test_planning_ends_when_somebody_interrupts() -> None:
    left = [5]

    def check() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise InterruptedBuildError("interrupted")

    with pytest.raises(InterruptedBuildError):
        convert(parse(b"FROM base\n" + b"ENV A=b\n" * 100), PlanOptions(), base(), effort=Effort(check))
