"""A RUN cannot have the builder follow its links: nothing of the builder's is read, changed or moved for it, in any mode.

In CI all attacks on a mode are built one after another beside the same files; with KPY_TEST_FULL=1 each is a build of its
own, with honest builds before and after it.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import bases
import builder as builders
import hostile
import pytest
import trees
from canaries import NAMES, RESTRICTED, Build, Done, Mode, in_container, on_host, without_landlock
from hostile import DIR, LINK, member
from hostile_attacks import ATTACKS, Attack
from hostile_matrix import BEFORE, DURING, MOUNTS, STAGE, SWAPS, Cell, links, onbuild
from hostile_programs import Program
from people import Kpy, User, account
from servers import Docker, Registry

FULL = os.environ.get("KPY_TEST_FULL") == "1"
ARGUMENTS = ("--secret", "id=s,src={secrets}/0/value", "--ssh", "default={secrets}/key")
HONEST = """FROM {base}
COPY data /opt/data
RUN --mount=type=cache,id=honest,target=/opt/c --mount=type=tmpfs,target=/opt/t --mount=type=secret,id=s \\
    cp /run/secrets/s /opt/t/s && echo kept > /opt/c/kept && echo made > /opt/made
"""
AGAIN = "RUN --mount=type=cache,id=honest,target=/opt/c cp /opt/c/kept /opt/again\n"
MODES = ("root", "restricted", "volume", "random", "no-landlock", "no-capabilities", "chroot", "userns", "single")
LIKE_RESTRICTED = ("random", "no-capabilities")
UNWALLED = ("root", "no-landlock")
"""Where a RUN can itself use the builder's files, so that only what the builder does for it can be looked at."""


@pytest.fixture(scope="module")
def modes(docker: Docker, program: str, dev: User, area: Path) -> Mapping[str, Mode]:
    """All ways to build, by name."""
    image = builders.make(docker)
    refusing = without_landlock(area / "without-landlock.json")
    solo = account("kpy-solo")

    def of(user: User) -> Callable[[Path], Kpy]:
        return lambda home: Kpy(program, user, home)

    found = [
        in_container("root", docker, image, 0, 0),
        in_container("restricted", docker, image, 1000, 1000, *RESTRICTED),
        in_container("volume", docker, image, 1000, 1000, *RESTRICTED, volume=True),
        in_container("random", docker, image, 123456, 0, *RESTRICTED),
        in_container("no-landlock", docker, image, 1000, 1000, *RESTRICTED, *refusing),
        in_container("no-capabilities", docker, image, 0, 0, *RESTRICTED),
        in_container("chroot", docker, image, 0, 0, flags=("--isolation", "chroot")),
        on_host("userns", of(dev), flags=("--isolation", "userns")),
        on_host("single", of(solo), flags=("--isolation", "userns")),
    ]
    assert sorted(MODES) == sorted(mode.name for mode in found)
    return {mode.name: mode for mode in found}


class Site:
    """Where the images come from and go to."""

    def __init__(self, registry: Registry, cache: Path, area: Path) -> None:
        self.host, self.area = registry.host, area
        self._busybox = bases.rootfs("base/busybox:1", cache)
        self._count = 0
        self._bases: dict[tuple[str, ...], tuple[str, str]] = {}

    def _base(self, places: Mapping[str, str]) -> tuple[str, str]:
        """A busybox with a /opt and links in it to these places; and one that has the links made by who builds on it."""
        key = tuple(sorted(places.items()))
        if key not in self._bases:
            number = len(self._bases)
            made = [member(name, DIR) for name in ("opt", "srv")] + [member(name, LINK, link=to) for name, to in links(places).items()]
            packed = [self._busybox, hostile.layer(self.area / f"with-links-{number}.tar.gz", made)]
            runtime: dict[str, object] = {"Env": [bases.PATH]}
            plain = bases.push_layers(self.host, f"hostile/base-{number}:1", packed, runtime)
            runtime = {**runtime, "OnBuild": onbuild(places)}
            self._bases[key] = plain, bases.push_layers(self.host, f"hostile/triggers-{number}:1", packed, runtime)
        return self._bases[key]

    def attack(self, mode: Mode, builds: Sequence[tuple[str, Sequence[str]]]) -> "Tried":
        """Dockerfiles and the arguments of their builds, between two honest builds."""
        self._count += 1
        place = mode.place(self.area)
        places = mode.places(place)
        base, triggers = self._base(places)
        known = {**places, "base": base, "triggers": triggers, "top": "/opt", "scratch": "/kpy/tmp"}
        if not places["store"].startswith("/kpy/"):
            known |= {"top": f"{place}/home", "scratch": f"{place}/home"}
        known |= {"scripts": "/dev/pipes" if mode.name != "no-landlock" else "/kpy/tmp/scripts/pipes"}
        names = [f"{self.host}/hostile/{mode.name}-{self._count}-{number}:1" for number in range(len(builds) + 2)]
        wanted = []
        for (text, more), name in zip([(HONEST, ()), *builds, (HONEST + AGAIN, ())], names, strict=True):
            filled = (text if text.startswith("FROM") else "FROM {base}\n" + text).format(id=name.rpartition("/")[2].replace(":", "-"), **known)
            given = tuple(word.format(**known) for word in (*ARGUMENTS, *more))
            wanted.append(Build(filled, "" if "-o" in more else name, given))
        first, *done, last = mode.builds(wanted, place)
        return Tried(first, done, last)


@dataclass(frozen=True)
class Tried:
    """Hostile builds, and the honest ones before and after them."""

    first: Done
    hostile: list[Done]
    last: Done

    def check_honest(self) -> None:
        """What is in the store and in the caches is what honest builds put there."""
        assert self.first.status == 0, self.first.err
        assert self.last.status == 0, self.last.err
        self.last.check()
        assert trees.layers(self.last.build.name)[:-1] == trees.layers(self.first.build.name)
        assert self.last.files()["opt/again"] == b"kept\n"


@pytest.fixture(scope="module")
def site(registry: Registry, cache: Path, area: Path) -> Site:
    return Site(registry, cache, area)


# --- what is tried

FIRST = int(os.environ.get("KPY_TEST_SEED", "0"))
AT_ONCE = 3  # programs in one Dockerfile: where one is refused, those after it do not run


@dataclass(frozen=True)
class Trial:
    """A name for people, Dockerfiles with the arguments of their builds, and the markers that their images have."""

    name: str
    builds: tuple[tuple[str, tuple[str, ...]], ...]
    markers: tuple[str, ...] = ()


def _attack(attack: Attack) -> Trial:
    builds = tuple((text, attack.more) for text in (attack.text, attack.again) if text)
    return Trial(attack.name.replace(" ", "-"), builds)


def _cells(cells: Sequence[Cell], name: str) -> Trial:
    """Mounts in one Dockerfile. Places are in it by their names in braces, as in attacks."""
    places = {place: f"{{{place}}}" for place in NAMES}
    last = "triggers" if any(cell.swap == "onbuild" for cell in cells) else "base"
    steps = [line for cell in cells for line in cell.steps(places)]
    text = STAGE + f"FROM {{{last}}}\n" + "\n".join(steps) + "\n"
    return Trial(name, ((text, ()),), tuple(f"opt/marker-{cell.name}" for cell in cells))


def _programs(numbers: Sequence[int], *, careful: bool) -> Trial:
    """Programs at random; the numbers say which."""
    places = {place: f"{{{place}}}" for place in NAMES}
    steps = [line for number in numbers for line in Program(number, places, careful=careful).steps()]
    text = "\n".join(["FROM {base}", *steps]) + "\n"
    return Trial(f"programs-{numbers[0]}", ((text, ()),), tuple(f"opt/marker-{number}" for number in numbers))


def _trials(name: str) -> list[Trial]:
    """On a mode. In CI: all attacks where the builder is restricted, some elsewhere; every mount in one way, other ways in other
    modes; a few programs."""
    turn = MODES.index(name)
    able = [attack for attack in ATTACKS if attack.alone or name not in UNWALLED]
    mounts = list(MOUNTS)
    if FULL:
        cells = [_cells([cell], cell.name) for mount in MOUNTS for swap in SWAPS for place in NAMES for cell in [Cell(mount, swap, place)]]
        count = 60
    else:
        few = [] if name in LIKE_RESTRICTED else able[turn % 8 :: 8]
        able = able if name == "restricted" else few
        together = [
            Cell(mount, DURING[(turn + number) % len(DURING)], NAMES[(turn + number // 2) % len(NAMES)]) for number, mount in enumerate(mounts)
        ]
        cells = [_cells(together, "all-mounts")]
        for number in (2 * turn, 2 * turn + 1):  # links that were there before, alone: such a mount may be refused
            cell = Cell(mounts[number % len(mounts)], BEFORE[number % len(BEFORE)], NAMES[turn % len(NAMES)])
            cells.append(_cells([cell], cell.name))
        count = AT_ONCE
    numbers = range(FIRST, FIRST + count)
    programs = [_programs(numbers[start : start + AT_ONCE], careful=name in UNWALLED) for start in range(0, count, AT_ONCE)]
    return [*map(_attack, able), *cells, *programs]


TRIALS = {name: _trials(name) for name in MODES}
PAIRS = [pytest.param(name, trial, id=f"{name}-{trial.name}") for name, trials in TRIALS.items() for trial in trials]
Results = Callable[[Mode, Trial | None], Tried]


@pytest.fixture(scope="module")
def results(modes: Mapping[str, Mode], site: Site) -> Results:
    """The builds of a trial by itself, or picked out of those of all trials on the mode at once: of none, all of them."""
    known: dict[str, Tried] = {}

    def get(mode: Mode, trial: Trial | None) -> Tried:
        if trial is not None and FULL:
            return site.attack(mode, trial.builds)
        builds = [(one, build) for one in TRIALS[mode.name] for build in one.builds]
        if mode.name not in known:
            known[mode.name] = site.attack(mode, [build for _, build in builds])
        every = known[mode.name]
        hostile = [done for (one, _), done in zip(builds, every.hostile, strict=True) if trial in (None, one)]
        return Tried(every.first, hostile, every.last)

    return get


@pytest.mark.parametrize(("name", "trial"), PAIRS)
def test_the_builder_follows_no_link(modes: Mapping[str, Mode], results: Results, name: str, trial: Trial) -> None:
    tried = results(modes[name], trial)
    for done in tried.hostile:
        done.check()
        if trial.markers and done.status == 0:  # what RUNs made beside the mounts is in the image
            assert {path: data for path, data in done.files().items() if path in trial.markers} == dict.fromkeys(trial.markers, b"marker\n")
    if FULL:
        tried.check_honest()


if not FULL:

    @pytest.mark.parametrize("name", MODES)
    def test_honest_builds_after_all_of_them(modes: Mapping[str, Mode], results: Results, name: str) -> None:
        results(modes[name], None).check_honest()
