"""`kpy build --check` on Dockerfiles of the conformance suite, and on a base in a real registry.

The suite lays out the cases and starts their servers; in place of a builder it runs a script that keeps what
`--check` says of each. Where the suite is, is said in test_conformance.py.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

from forked_kpy import forked
from people import Kpy
from servers import Registry
from test_conformance import SUITE

from kpy.dockerfile.lint.rules import RULES
from kpy.errors import RegistryError

SCRIPT = """\
#!/bin/sh
name=$1
shift
"{program}" build --call=check,format=json "$@" > "{out}/$name.out" 2> "{out}/$name.err"
echo $? > "{out}/$name.code"
"""
WORDS = "{name} --file {dockerfile} {target} {platform} {build_args} {secrets} {contexts} {context}"

if SUITE.is_dir() or os.environ.get("CI") == "true":

    def test_check_of_conformance_cases(kpy: Kpy, registry: Registry, area: Path) -> None:
        """Every third, or with KPY_TEST_ALL set every one."""
        suite = area / "conformance-check"
        shutil.copytree(SUITE, suite, symlinks=True)
        if not os.environ.get("KPY_TEST_ALL"):
            for number, case in enumerate(sorted((suite / "cases").glob("*/case.json"))):
                if number % 3:
                    shutil.rmtree(case.parent)
        make = suite / "bases" / "make-bases"
        subprocess.run([make, "--push", registry.host], check=True, capture_output=True, timeout=600)
        out = kpy.home / "answers"
        out.mkdir(mode=0o777)
        out.chmod(0o777)
        script = kpy.home / "check"
        command = [suite / "run", "--builder", f"{script} {WORDS}", "--registry", registry.host, "--jobs", "2"]
        with forked(kpy.home, kpy.spawn()) as fast:
            script.write_text(SCRIPT.format(program=fast, out=out))
            script.chmod(0o755)
            subprocess.run(command, cwd=kpy.home, capture_output=True, check=False, timeout=3000, **kpy.spawn())  # type: ignore[call-overload]

        names = {path.name for path in (suite / "cases").iterdir() if path.is_dir()}
        answers = {path.stem for path in out.glob("*.code")}
        assert answers == names
        wrong = [line for name in sorted(names) for line in faults(suite / "cases" / name, out)]
        assert wrong == []


def faults(case: Path, out: Path) -> list[str]:
    """What is wrong with the answer for one case."""
    error = (out / f"{case.name}.err").read_text(errors="replace")
    code = int((out / f"{case.name}.code").read_text())
    if "Traceback" in error or "internal error" in error or code == 70:
        return [f"{case.name}: {error[-500:]}"]
    text = (out / f"{case.name}.out").read_text()
    if not text:  # the context was at fault, or the command line: no Dockerfile to speak of
        return [] if code in (2, 5) and "error: " in error else [f"{case.name}: {code} {error}"]
    answer = json.loads(text)
    expected = 1 if answer["warnings"] else 0
    if "buildError" in answer:
        is_error = json.loads((case / "case.json").read_text())["expect"] == "error"
        # Stages that the build does not need are looked at too, and may name images that are nowhere.
        may_be = is_error or code == RegistryError.exit_code
        return [] if code > 1 and may_be else [f"{case.name}: {answer['buildError']}"]
    return [] if code == expected else [f"{case.name}: {code} {error}"]


def test_a_build_warns_once_each_and_goes_on(kpy: Kpy, registry: Registry, workdir: Path) -> None:
    (workdir / "Dockerfile").write_text("FROM scratch AS X\nCOPY Dockerfile /\nCMD run $me\n")
    done = kpy("build", "--progress=plain", workdir)
    assert done.stdout.startswith("sha256:")
    assert done.stderr.count("StageNameCasing: ") == 1
    assert done.stderr.count("JSONArgsRecommended: ") == 1
    assert "hint: 2 warnings found; `kpy explain JSONArgsRecommended` tells" in done.stderr


def test_a_build_can_be_told_to_stop_at_findings(kpy: Kpy, workdir: Path) -> None:
    (workdir / "Dockerfile").write_text("# check=error=true\nFROM scratch\nCOPY Dockerfile /\nCMD run\n")
    done = kpy("build", workdir, check=False)
    assert done.returncode == 3
    assert "error: the build checks failed: JSONArgsRecommended" in done.stderr
    assert done.stdout == ""


def test_explain(kpy: Kpy) -> None:
    assert "## Why" in kpy("explain", "JSONArgsRecommended").stdout
    assert len(kpy("explain").stdout.splitlines()) == len(RULES)
