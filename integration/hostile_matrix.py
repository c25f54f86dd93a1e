"""Every kind of mount, and every way in which what is at its target, or above it, becomes a link to the builder's files.

Below a place of the builder's there is a directory `held` and a file `value` (canary_driver.py), so a mount whose target has
that name is one of that name in the place, once its parent is a link to it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

MOUNTS = {
    "bind": "type=bind,source=data",
    "bind-rw": "type=bind,source=data,rw",
    "bind-of-stage": "type=bind,from=made,source=/opt/made",
    "bind-of-stage-rw": "type=bind,from=made,source=/opt/made,rw",
    "cache": "type=cache,id={id}",
    "cache-private": "type=cache,id={id}-private,sharing=private",
    "cache-ro": "type=cache,id={id},ro",
    "tmpfs": "type=tmpfs",
    "secret": "type=secret,id=s",
    "ssh": "type=ssh",
}
FILES = ("secret", "ssh")
STAGE = "FROM {base} AS made\nRUN mkdir -p /opt/made && echo ours > /opt/made/file\n"
"""What mounts of a stage are of."""

BEFORE = ("earlier", "base", "onbuild", "cache-content")
DURING = ("target", "target-moved", "parent", "parent-moved-deep", "relative")
SWAPS = (*DURING, *BEFORE)


@dataclass(frozen=True)
class Cell:
    """One mount, whose target becomes a link, or gets one above it, which leads to `place`."""

    mount: str
    swap: str
    place: str

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.mount}-{self.swap}-{self.place}"

    @property
    def parent(self) -> str:
        """The directory above the target. That of links that came before is one that the base image has as a link."""
        return f"/opt/{self.swap}-{self.place}" if self.swap in ("base", "onbuild") else f"/opt/{self.name}"

    @property
    def target(self) -> str:
        """Where the mount is wanted."""
        return f"{self.parent}/{'value' if self.mount in FILES else 'held'}"

    def steps(self, places: Mapping[str, str]) -> Iterator[str]:
        """The Dockerfile. What the RUNs themselves look at is only what is mounted, so that all that is seen was brought by
        the builder."""
        to, above, target = places[self.place], self.parent, self.target
        mount = f"--mount={MOUNTS[self.mount]},target={target}"
        made = f"echo marker > /opt/marker-{self.name}"
        if self.swap in DURING:
            yield f"RUN {mount} {self._swap(to)}; {made}"
        elif self.swap == "cache-content":
            yield f"RUN --mount=type=cache,id={{id}}-around,target={above} ln -s {to} {above}/in"
            inner = target.replace(above, f"{above}/in")
            yield f"RUN --mount=type=cache,id={{id}}-around,target={above} --mount={MOUNTS[self.mount]},target={inner} {made}"
        else:
            if self.swap == "earlier":
                yield f"RUN ln -s {to} {above}"
            yield f"RUN {mount} {made}"
        if self.mount.startswith("cache"):  # what is in it now?
            options = MOUNTS[self.mount].removesuffix(",ro")
            yield f"RUN --mount={options},target=/opt/look ls -R /opt/look; cat /opt/look/*; true"
            yield f"RUN --mount={options},target=/srv,ro ls -R /srv; cat /srv/*; true"
        elif self.mount not in ("tmpfs", "secret", "ssh"):
            yield f"RUN --mount={MOUNTS[self.mount]},target=/opt/look cat /opt/look/file && ls /opt/look"

    def _swap(self, to: str) -> str:
        """A command that changes names only, and whose failure is no failure: a real mount is busy."""
        above, target = self.parent, self.target
        leaf = target.rpartition("/")[2]
        up = "/".join([".."] * 12)
        return {
            "target": f"rm -rf {target}; ln -s {to}/{leaf} {target}",
            "target-moved": f"mv {target} /opt/moved-{self.name}; ln -s {to}/{leaf} {target}",
            "parent": f"mv {above} {above}.old; ln -s {to} {above}",
            "parent-moved-deep": f"mkdir -p /opt/deep-{self.name} && mv {above} /opt/deep-{self.name}/in; ln -s {to} {above}",
            "relative": f"mv {above} {above}.old; ln -s {up}{to} {above}",
        }[self.swap]


def links(places: Mapping[str, str]) -> dict[str, str]:
    """Those of the base image: by their path, where they lead."""
    return {f"opt/base-{name}": path for name, path in places.items()}


def onbuild(places: Mapping[str, str]) -> list[str]:
    """Those that a RUN of the base image makes in who builds on it."""
    return [f"RUN ln -s {path} /opt/onbuild-{name}" for name, path in places.items()]
