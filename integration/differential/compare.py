"""Build cases in the form of the conformance suite with BuildKit and with kpy, and compare the images: files, owners, modes,
times, layers, configuration, and the texts of the history, which the suite leaves alone; where both fail, the lines they name.

For each case that differs: its name and what differs. --errors shows the texts where both fail.
"""

import argparse
import concurrent.futures
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
from pathlib import Path

CONFORMANCE = os.environ.get("KPY_CONFORMANCE") or str(Path(__file__).resolve().parents[3] / "shared" / "conformance")
sys.path.insert(0, CONFORMANCE)
from harness import builders, cases, golden, images, servers  # type: ignore[import-not-found]  # noqa: E402
from harness.main import discard  # type: ignore[import-not-found]  # noqa: E402

BUILDKIT = (
    "docker buildx build --no-cache --network=host --progress plain --provenance=false -f {dockerfile} {target} {platform} "
    "{build_args} {secrets} {contexts} --output type=oci,dest={oci_tar} {extra} {context}"
)


class BuildKit(builders.Builder):
    """docker's, with the context sent anew: it keeps the last one and only updates it, which changes times of directories."""

    lock = threading.Lock()

    def build(self, work):
        with self.lock:
            self.run(["docker", "buildx", "prune", "--force", "--filter", "type=source.local"])
            status, output = self.run(builders.argv_template(BUILDKIT, work, self.extra))
        return self.outcome(work, status, output)


class Comparison:
    """Builds with both, in `top`."""

    def __init__(self, options: argparse.Namespace, top: str) -> None:
        self.top = top
        self.registry = options.registry
        self.bases = servers.BaseImages(options.registry)
        self.files = servers.FileServer()
        given = {"extra": [], "timeout": 180, "registry": options.registry, "env": {}, "builder": "kpy", "tools": {"kpy": options.kpy}}
        self.builders = {
            "BuildKit": BuildKit(types.SimpleNamespace(**given), top),
            "kpy": builders.Kpy(types.SimpleNamespace(**given | {"extra": ["--no-cache"]}), top),
        }

    def __call__(self, case):
        """The case, whether both agree, and what there is to say."""
        try:
            return case, *self._compare(case)
        except Exception:
            return case, False, [("comparison", traceback.format_exc()[-600:])]

    def _compare(self, case):
        made = {}
        for name, builder in self.builders.items():
            where = os.path.join(self.top, case.name, name)
            os.makedirs(where)
            work = cases.Workplace(case, where, self.registry, self.files)
            started = time.time()
            outcome = builder.build(work)
            Path(where, "log").write_text(outcome.output)
            made[name] = work, outcome, started
        (work, theirs, started), (our_work, ours, _) = made.values()
        said = f"\n      BuildKit: {_end(theirs.output)}\n      kpy:      {_end(ours.output)}"
        if not (theirs.status and ours.status) and (theirs.status or ours.status):
            return False, [("one fails", said)]
        if theirs.status:
            lines = [re.search(r"^\S*Dockerfile:(\d+)", outcome.output, re.MULTILINE) for outcome in (theirs, ours)]
            found, got = (match and match[1] for match in lines)
            return found is None or found == got, [("both fail", f"at lines {found} and {got}{said}")]
        image, our_image = images.load(theirs.image, case.platform), images.load(ours.image, case.platform)
        base = self.bases.find_base(image.diff_ids)
        tree, layers = self.bases.tree(base)
        found = golden.compare(golden.describe(image, tree, base, layers, started, work), our_image, tree, layers, our_work)
        for expected, got in zip(_texts(image), _texts(our_image), strict=False):
            if expected != got:
                found.append(("history text", f"expected {expected!r}\n      got {got!r}"))
        return not found, found


def _texts(image) -> list[str]:
    return [re.sub(r"\s+", " ", item.get("created_by", "")) for item in image.config.get("history") or []]


def _end(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"error|hint", line, re.IGNORECASE)]
    return " | ".join(errors or lines[-2:])[-400:]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directories", nargs="+", help="of cases")
    parser.add_argument("--registry", default="127.0.0.1:5000", help="with the base images of the suite")
    parser.add_argument("--kpy", default="kpy", help="the program")
    parser.add_argument("--cases", action="append", default=[], help="only cases with such names")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--errors", action="store_true", help="show what is said where both fail")
    parser.add_argument("--show", type=int, default=6, help="how many differences of a case")
    options = parser.parse_args()
    subprocess.run(["docker", "buildx", "version"], check=True, stdout=subprocess.DEVNULL)
    top = tempfile.mkdtemp(prefix="differential-", dir="/var/tmp")
    os.chmod(top, 0o755)
    comparison = Comparison(options, top)
    same = 0
    found = cases.find(options.directories, options.cases)
    try:
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            for case, agree, differences in pool.map(comparison, found):
                same += agree
                if not agree or (options.errors and differences):
                    print("same" if agree else "DIFFERS", case.name)
                    for aspect, text in differences[: options.show]:
                        print(f"    {aspect}: {text}")
                    sys.stdout.flush()
    finally:
        comparison.files.close()
        discard(top)
    print(f"{same} same, {len(found) - same} different")
    return same != len(found)


if __name__ == "__main__":
    sys.exit(main())
