"""Programs at random for one RUN: they rename, link, remove and make names at a mount's target, beside it and above it, and
some go on doing so until the RUN is over. The same number gives the same program."""

import random
from collections.abc import Mapping

PARENT = "/opt/p"
CACHE, TMPFS = f"{PARENT}/held", f"{PARENT}/cache"
NAMES = (PARENT, CACHE, TMPFS, f"{PARENT}/s", "/opt/q", "/opt/q/held", "/opt/q/cache", "/opt/r", f"{CACHE}/in", f"{CACHE}/held")
# Does a link lead to the name? A RUN that nothing keeps from the builder's files must not change them itself.
PLAIN = 'plain() {{ p=$1; while p="${{p%/*}}"; test -n "$p"; do test -L "$p" && return 1; done; return 0; }}'


class Program:
    """A program, and the steps of a Dockerfile that run it and then look for what it got."""

    def __init__(self, number: int, places: Mapping[str, str], *, careful: bool) -> None:
        self.number = number
        self._random = random.Random(number)
        self._careful = careful
        up = "/".join([".."] * 12)
        real = [*places.values(), *(f"{path}/held" for path in places.values()), f"{places['logins']}/value"]
        self._links = [*real, *(f"{up}{path}" for path in real), *(f"/proc/self/root{path}" for path in real), "..", ".", "/", *NAMES]

    def steps(self) -> list[str]:
        """As in hostile_matrix."""
        cache = f"--mount=type=cache,id={{id}}-{self.number}"
        look = "find {0}/ -type f | while read f; do cat $f; done; ls -R {0}/; true"
        commands = [PLAIN, *(f"{self._command()}" for _ in range(self._random.randint(2, 8)))]
        if not self._careful and self._random.random() < 0.5:
            commands += [self._background() for _ in range(self._random.randint(1, 2))]
            commands.append("sleep 0.1")
        before = f"mkdir -p /opt/q/held {PARENT}/s; echo ours > {PARENT}/s/file; echo ours > /opt/q/held/file"
        if self._random.random() < 0.5:  # what is at the targets already is moved aside
            before += f"; mkdir -p {CACHE} {TMPFS}; echo ours > {TMPFS}/file"
        run = f"RUN {cache},target={CACHE} --mount=type=tmpfs,target={TMPFS}"
        return [
            f"RUN {before}",
            f"{run} ({'; '.join(commands)}) 2> /dev/null; echo marker > /opt/marker-{self.number}",
            f"RUN {cache},target=/opt/look {look.format('/opt/look')}",
            f"RUN {cache},target=/srv,ro {look.format('/srv')}",
        ]

    def _command(self) -> str:
        one, other = self._random.choice(NAMES), self._random.choice(NAMES)
        link = self._random.choice(self._links)
        command = self._random.choice(
            [f"mv -T {one} {other}", f"ln -sfn {link} {one}", f"rm -rf {one}", f"mkdir -p {one}", f"test -L {one} || touch {one}",
             f"rm -rf {one}; ln -s {link} {one}", f"mv {one} {one}.old && ln -s {link} {one}", f"mkfifo {one}",
             f"mv -T {one} /opt/x; mv -T {other} {one}; mv -T /opt/x {other}", f"test -L {one} || echo EVIL > {one}"]
        )  # fmt: skip
        return f"plain {one} && plain {other} && {{{{ {command}; }}}}" if self._careful else command

    def _background(self) -> str:
        one, link = self._random.choice(NAMES), self._random.choice(self._links)
        swap = self._random.choice([f"mv {one} /opt/x; ln -sfn {link} {one}; rm -f {one}; mv /opt/x {one}", f"ln -sfn {link} {one}"])
        return f"while true; do {swap}; done &"
