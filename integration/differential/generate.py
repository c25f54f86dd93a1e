"""Dockerfiles and contexts at random, as cases of the conformance suite: `generate.py KIND SEED COUNT DIRECTORY`.

Each kind is a function here, named in KINDS; `all` is every one of them. The same seed gives the same cases.
"""

import json
import os
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

Item = dict[str, object]
BASES = ("base/busybox:1", "base/debian:1", "base/config:1", "base/alpine:1", "base/minimal:1")
# What COPY meets in the base: a directory, links to it and to nowhere, files.
PRELUDE = (
    "RUN mkdir -p /exist/sub /srv/real && echo x >/file && ln -s /srv/real /ln && ln -s nowhere /dang && "
    "ln -s ../srv/real /exist/rel && ln -s /exist /abs && ln -s /file /lnf && echo y > /exist/a && "
    "touch -d '2001-01-01 00:00:00' /exist/a && chmod 700 /exist/sub && chown 3:4 /exist/sub\n"
)
SYMBOLIC = ("u=rwx,g=rx", "a+x", "go-w", "u+s", "+t", "go=", "u=rwX,go=rX", "a=r,u+w", "g+s", "o=t", "u=g", "+xt", "=", "u-X", "g=u-w")


class Case:
    """One case, made by drawing from `random`."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.items: list[Item] = []
        self.arguments: dict[str, str] = {}

    def one(self, *choices):
        return self.draw.choice(choices)

    def chance(self, share: float) -> bool:
        return self.draw.random() < share

    def write(self, directory: Path, dockerfile: str) -> None:
        (directory / "context").mkdir(parents=True)
        (directory / "context" / "Dockerfile").write_text(dockerfile)
        data = {"description": directory.name, "expect": "success", "setup": self.items, "build_args": self.arguments}
        (directory / "case.json").write_text(json.dumps(data, indent=1))

    # --- contexts ----------------------------------------------------------------

    def tree(self, *, odd: bool) -> list[str]:
        """Files of all kinds in the context; their paths."""
        names = ["a", "b", "c", "d.txt", "e.go", "f.txt", "sub", "x1", "x2", ".hid", "A"]
        names += ["sp ace", "st*r", "q?m", "br[a]", "ü", "dash-", "-dash", "back\\sl", "com,ma", "$dol"] if odd else []
        directories, files, links, taken = [""], [], [], {"Dockerfile", ".dockerignore"}
        for number in range(self.draw.randint(4, 14)):
            parent = self.draw.choice(directories)
            path = os.path.join(parent, self.draw.choice(names))
            if path in taken or path.count("/") > 4:
                continue
            taken.add(path)
            share, time = self.draw.random(), 1400000000 + number
            if share < 0.42:
                item: Item = {"path": path, "text": path, "mtime": time}
                if self.chance(0.3):
                    item["mode"] = self.one("0600", "0755", "0444", "4755", "2755", "1644", "0000", "0777", "6711")
                if self.chance(0.15):
                    item |= {"uid": self.one(5, 1000), "gid": self.one(7, 1000)}
                files.append(path)
            elif share < 0.75:
                item = {"path": path, "type": "dir", "mtime": time}
                if self.chance(0.3):
                    item["mode"] = self.one("0700", "0755", "1777", "2775", "0777", "0555")
                directories.append(path)
            elif share < 0.92 or not files:
                target = self.one("a", "b", "sub", "../a", "/a", "/sub", "..", ".", "nowhere", "../../x", "sub/a", "./c", "c/../a", "/etc/passwd", "a/")
                item = {"path": path, "type": "symlink", "target": target, "mtime": time}
                links.append(path)
            else:
                item = {"path": path, "type": "hardlink", "target": self.draw.choice(files)}
                files.append(path)
            self.items.append(item)
        return directories + files + links

    def source(self, paths: Sequence[str]) -> str:
        """A word of COPY: a path, with wildcards or slashes."""
        path = self.draw.choice(paths) or "."
        share = self.draw.random()
        if share < 0.3 and path != ".":
            parts = path.split("/")
            number = self.draw.randrange(len(parts))
            word = parts[number]
            parts[number] = self.one("*", word[:1] + "*", "*" + word[-1:], "?" * len(word), "[a-f]*", "**", "*.*", "[^a]*")
            return "/".join(parts)
        for limit, form in ((0.38, "{}/"), (0.43, "./{}"), (0.48, "/{}"), (0.52, "{}/."), (0.55, "{}/.."), (0.58, "{}/*"), (0.61, "../{}"), (0.63, "{}//x1")):
            if share < limit:
                return form.format(path)
        return path

    def copy(self, paths: Sequence[str], stage: str = "", *, link: bool = False) -> str:
        """COPY or ADD, with any flags."""
        flags = [f"--from={stage}"] if stage else []
        if self.chance(0.25):
            flags.append("--chown=" + self.one("1000", "1000:7", "daemon", ":5", "0", "5:6"))
        if self.chance(0.25):
            flags.append("--chmod=" + self.one("755", "0644", "600", "4755", "0000", *SYMBOLIC))
        if link or self.chance(0.2):
            flags.append("--link")
        for _ in range(2):
            if self.chance(0.12):
                flags.append("--exclude=" + self.one("*.txt", "**/a", "sub", "*", "a", "**/*.go", "b/*", "!x1", "x?", "/a", "sub/**", "c/"))
        words = [self.source(paths) for _ in range(self.one(1, 1, 1, 2, 3))]
        dest = self.one(
            "/d1/", "/d2", "/d2/", "d3/", "./", ".", "/srv/", "/srv", "/srv/x/y", "/ln", "/ln/", "/ln/deep/", "/dang/", "/dang", "/file", "/srv/..",
            "/tmp/q/", "/exist/", "/exist", "/exist/sub", "/abs/", "/d 4/", "..", "/lnf", "/exist/a",
        )  # fmt: skip
        if len(words) > 1 and self.chance(0.8):
            dest = dest.rstrip("/") + "/"
        self.draw.shuffle(flags)
        keyword = "ADD" if not stage and self.chance(0.2) else "COPY"
        return f"{keyword} {' '.join(flags)} {json.dumps([*words, dest], ensure_ascii=False)}\n"


def copies(case: Case) -> str:
    """COPY and ADD from the context or a stage, with or without a .dockerignore."""
    paths = case.tree(odd=case.chance(0.5))
    text, stage = "", ""
    if case.chance(0.4):
        stage = "src"
        more = "WORKDIR /w\nCOPY . /\nRUN mkdir -p /sub && touch -d '2002-02-02 02:02:02' /sub && chown 9:9 /sub && echo hi > /sub/zz && chmod 4711 /sub/zz\n"
        text = case.one("FROM scratch AS src\nCOPY . /\n", "FROM base/busybox:1 AS src\n" + more)
    text += "FROM base/busybox:1\n" + PRELUDE
    if case.chance(0.3):
        text += f"WORKDIR {case.one('/w', '/ln/wd', 'rel', '/exist/rel', '/dang/w')}\n"
    if case.chance(0.2):
        text += f"USER {case.one('1000', 'daemon', '5:6')}\n"
    if case.chance(0.25):
        patterns = ("*", "a", "!a", "**/a", "!**/a", "sub", "!sub", "sub/*", "!sub/a", "*.txt", "!f.txt", "x?", "b/**", "/c", "c/", ".*", "**", "[a-c]")
        case.items.append({"path": ".dockerignore", "text": "\n".join(case.draw.choices(patterns, k=3)) + "\n"})
    return text + "".join(case.copy(paths, stage) for _ in range(case.one(1, 1, 2)))


def links(case: Case) -> str:
    """COPY --link, and RUNs between."""
    paths = case.tree(odd=False)
    text = "FROM scratch AS src\nCOPY . /\nFROM base/busybox:1\n" + PRELUDE
    for number in range(case.draw.randint(1, 3)):
        text += case.copy(paths, case.one("src", ""), link=True)
        text += f"RUN echo {number} >> /d1/zz; rm -rf /d2; true\n" if case.chance(0.3) else ""
    return text


def ignores(case: Case) -> str:
    """.dockerignore."""
    directories, taken = [""], set()
    for _ in range(case.draw.randint(8, 30)):
        path = os.path.join(case.draw.choice(directories), case.one("a", "b", "ab", "abc", "d.txt", "e.go", ".hid", "node", "x"))
        if path in taken or path.count("/") > 4:
            continue
        taken.add(path)
        if case.chance(0.5):
            directories.append(path)
            case.items.append({"path": path, "type": "dir", "mtime": 1400000000})
        elif case.chance(0.15):
            case.items.append({"path": path, "type": "symlink", "target": case.one("a", "b", "../a", "/a", "nowhere")})
        else:
            case.items.append({"path": path, "text": path})
    words = ("*", "**", "a", "b", "ab*", "*b", "?", "a?c", "[ab]", "[!a]", "[^a]", "*.txt", ".hid", "node", "x", "..", ".", "a**", "**b", "\\*", "d.*", ".*")
    lines = []
    for _ in range(case.draw.randint(1, 7)):
        line = "/".join(case.draw.choices(words, k=case.draw.randint(1, 3)))
        line = case.one(line, line, line, "/" + line, line + "/", "./" + line, f" {line}  ", "#" + line, line.replace("/", "//"))
        lines.append("!" + line if case.chance(0.35) else line)
    text = case.one("", "", "", "\ufeff") + case.one("\n", "\n", "\r\n").join(lines) + case.one("", "\n")
    case.items.append({"path": ".dockerignore", "text": text})
    return "FROM scratch\n" + case.one("COPY . /\n", "COPY . /x/\n", "ADD . /\n", "COPY * /y/\n", "COPY a* /y/\n", "ADD */* /z/\n", "COPY ** /z/\n")


def expansions(case: Case) -> str:
    """A word with variables, quotes and escapes, where words are expanded."""
    word = _word(case)
    line = case.one(
        f"LABEL l={word}", f"LABEL l={word}", f"ENV E={word}", f"ENV E {word}", f"LABEL k {word}", f"ARG Q={word}\nENV QQ=$Q", f"WORKDIR {word}", f"USER {word}",
        f"VOLUME {word}", f"STOPSIGNAL {word}", f"EXPOSE {word}", f"CMD {word}\nENTRYPOINT {word}", f"LABEL {word}={_word(case)}",
    )  # fmt: skip
    return f'ARG G=gl\nFROM scratch\nARG G\nENV A=hello B="w o" C=a.b.c EMPTY= PATHS=/usr/local/lib:/x A1=*st*\n{line}\n'


def _word(case: Case, depth: int = 0) -> str:
    text = ""
    for _ in range(case.draw.randint(1, 5)):
        share = case.draw.random()
        if share < 0.3:
            text += case.one("a", "bc", "x/y", "1", "-", ":", ".", "é", "%", "=", "+", "@", "~", "\\n", "#", "*", "/")
        elif share < 0.4:
            text += "$" + case.one("A", "B", "C", "UNSET", "EMPTY", "1", "@", "A1", "é", "PATHS", "_", "$", "*", "?", "#", "-")
        elif share < 0.72:
            text += _braces(case, depth)
        elif share < 0.8:
            text += '"' + case.one("q s", "$A", "\\$A", "${B:-z}", '\\"', "'", "\\\\", "it's", "\\x", "a\\ b", "é", "") + '"'
        elif share < 0.88:
            text += "'" + case.one("q s", "$A", "\\$A", '"', "\\\\", "\\", "") + "'"
        else:
            text += case.one("\\$A", "\\ ", "\\\\", '\\"', "\\'", "\\x", "\\{", "\\}", "\\#", "{", "}")
    return text


def _braces(case: Case, depth: int) -> str:
    name = case.one("A", "B", "C", "UNSET", "EMPTY", "PATHS", "G", "1", "A1")
    if case.chance(0.25):
        return f"${{{name}}}"
    operator = case.one(":-", ":+", "-", "+", "#", "##", "%", "%%", "/", "//", ":?", "?")
    if case.chance(0.1):
        operator = case.one("^", ",", ":", ":=", "=", "@", "//#", " ", "/#", "/%")
    if operator in ("/", "//"):
        found = case.one("a", "?", "*", "[a-z]", "\\/", "/", "x", "l*", "$A", "o", "")
        return f"${{{name}{operator}{found}{case.one('', '/', '/Z', '/$B', '/a/b', '/é')}}}"
    if operator in ("#", "##", "%", "%%"):
        return f"${{{name}{operator}{case.one('*', 'a', '?', '*/', '/*', '*.', '.*', 'h*', '[a-l]', '*l', chr(92) + '*', '$A', 'l', '', '*o*', '[!h]')}}}"
    return f"${{{name}{operator}{_word(case, depth + 1) if depth < 2 else case.one('d', '', '$A')}}}"


def files(case: Case) -> str:
    """What RUNs do to files, layer by layer."""
    paths = ("/t/a", "/t/b", "/t/a/x", "/t/a/y", "/t/b/x", "/opt/fixture", "/opt/fixture/x", "/etc/base-version", "/t/c", "/opt/n/m", "/t", "/etc/new", "/srv/s")

    def change() -> str:
        one, two = case.one(*paths), case.one(*paths)
        return case.one(
            f"mkdir -p {one}", f"rm -rf {one}", f"echo {case.draw.randint(0, 9)} > {one}", f"ln -s {two} {one}", f"ln {two} {one}", f"mv {two} {one}",
            f"chmod {case.one('700', '4755', '1777', '644')} {one}", f"chown {case.one('5:6', '0:0', '1000')} {one}", f"mkfifo {one}.p", f"cp -a {two} {one}",
            f"touch -d '2003-03-03 03:03:0{case.draw.randint(0, 9)}' {one}", f"touch {one}", f"chmod g+s {one}", f"rm -rf {one} && mkdir {one}", f"echo x >> {one}",
            f"ln -sfn {two} {one}", f"mv {two} {one}.n && mv {one}.n {two}", f"truncate -s 100000 {one}", f"cp {two} {one}.c && mv {one}.c {two}",
        )  # fmt: skip

    text = f"FROM {case.one('base/busybox:1', 'base/layered:1', 'base/hardlink:1', 'base/special:1')}\nRUN mkdir -p /t\n"
    for _ in range(case.draw.randint(1, 4)):
        text += "RUN " + "; ".join(f"{change()} 2>/dev/null" for _ in range(case.draw.randint(1, 6))) + "; true\n"
    return text


def archives(case: Case) -> str:
    """ADD of an archive."""
    names = ("a", "b", "d", "d/x", "d/y", "d/e", "d/e/f", "./g", "/abs", "d/../h", "d//k", "lnk", "lnk/z", "./x/", "é", "x" * 120, f"d/{'y' * 90}/{'z' * 90}",
             "a/b", "etc/passwd", "tmp", "tmp/t", "ln", "ln/q", "dang/w")  # fmt: skip
    entries: list[Item] = []
    for number in range(case.draw.randint(1, 9)):
        kind = case.one("file", "file", "file", "dir", "dir", "symlink", "hardlink", "fifo")
        entry: Item = {"name": case.one(*names), "type": kind, "mtime": 1500000000 + number}
        if any(str(item["name"]).strip("./").startswith(str(entry["name"]).strip("./")) for item in entries):
            continue  # entries that take each other's place
        known = [item["name"] for item in entries if item["type"] == "file"]
        match kind:
            case "file":
                entry["text"] = f"c{number}"
            case "symlink":
                entry["target"] = case.one("a", "/etc", "../..", "d", "nowhere", "/d", ".")
            case "hardlink" if known:
                entry["target"] = case.draw.choice(known)
            case "hardlink":
                continue
        if case.chance(0.4):
            entry["mode"] = case.one("0600", "4755", "1777", "0000", "2755", "0777")
        if case.chance(0.4):
            entry |= {"uid": case.one(0, 5, 1000, 70000), "gid": case.one(0, 7, 70000)}
        entries.append(entry)
    name = case.one("t.tar", "t.bin", "t")
    case.items.append({"path": name, "tar": entries, "compress": case.one("", "gz", "bz2", "xz")})
    flag = case.one("", "", "--chown=5:6 ", "--chmod=700 ", "--chmod=go= ", "--link ", "--unpack=false ", "--unpack ", "--exclude=d ")
    dest = case.one("/", "/o/", "/o", "/ln/", "/ln", "/exist/", "/dang/", "/file2", "/abs", "rel/")
    return f"FROM {case.one('base/busybox:1' + chr(10) + PRELUDE, 'scratch' + chr(10))}ADD {flag}{name} {dest}\n"


def triggers(case: Case) -> str:
    """ONBUILD."""
    case.items += [{"path": "a", "text": "a"}, {"path": "b", "text": "b"}]
    lines = (
        "COPY a /oa", "COPY . /all/", "RUN echo $A > /ran", "ENV A=onb", "ARG A=x", "WORKDIR /ow", "USER 5", "LABEL l=$A", "ADD b /ob/", 'CMD ["q"]', "ENTRYPOINT e",
        "EXPOSE 7", "VOLUME /ov", 'SHELL ["/bin/sh","-ec"]', "STOPSIGNAL 9", "HEALTHCHECK NONE", "COPY --from=other /x /fx", "RUN <<E\necho hd > /hd\nE",
        "RUN --mount=type=bind,from=other,target=/m cp /m/x /mx", "COPY <<E /hd2\nbody $A\nE", "ADD --chown=1:2 a /c", "RUN id -u > /u", "FOO x", "COPY a",
    )  # fmt: skip
    text = "FROM base/busybox:1 AS other\nRUN echo x > /x\nFROM base/busybox:1 AS trig\n"
    text += "".join(f"ONBUILD {line}\n" for line in case.draw.sample(lines, case.draw.randint(1, 6)))
    if case.chance(0.3):
        return text
    text += "FROM trig AS mid\n" + case.one("ENV Z=$A\n", "RUN pwd > /pwd\n", "")
    return text + case.one("", "ONBUILD RUN echo second > /sec\nFROM mid\n")


def runs(case: Case) -> str:
    """What a RUN sees: environment, user, directory, mounts."""
    text = case.one("ARG G=1\n", "") + f"FROM {case.one(*BASES)}\n"
    for number in range(case.draw.randint(2, 7)):
        out = f"/tmp/o{number}"
        dump = case.one(
            f"env | sort > {out}", f"id > {out}; pwd >> {out}; umask >> {out}", f'echo "$HOME $A $B $0 $# $PATH" > {out}',
            f"grep -E 'Groups|Uid|Gid' /proc/self/status > {out}", f'echo "$-" > {out}',
        )  # fmt: skip
        env = case.one("A=1", 'A="x y"', "B=$A-2", "HOME=/hh", "PATH=/x:$PATH", "HOME=", "A=", "A=$UNSET", "B='$A'", "http_proxy=e")
        argument = case.one("A", "A=arg", "B=$A", "PATH", "HOME=/argh", "G", "TARGETARCH", "TARGETPLATFORM", "http_proxy=x", "A=", "no_proxy")
        mount = case.one("type=tmpfs,target=/mt", f"type=cache,target=/mc,id={case.draw.random()}", "type=bind,source=Dockerfile,target=/mf")
        text += case.one(
            f"RUN {dump}", f"RUN {dump}", f"RUN {json.dumps(['/bin/sh', '-c', dump])}", f"ENV {env}", f"ARG {argument}", f"RUN <<E\n{dump}\nE",
            f"USER {case.one('1000', 'daemon', 'app', '1000:5', 'root', '0', 'app:daemon', '12345', '12345:app')}", f"RUN --network=none {dump}",
            f"WORKDIR {case.one('/w', 'sub', '/tmp/../w2', '/home/app')}", f'SHELL {case.one(json.dumps(["/bin/sh", "-ec"]), json.dumps(["/bin/busybox", "ash", "-c"]))}',
            f"RUN <<'E' cat > /tmp/p{number}\n$A lit\nE", f'RUN <<E\n#!/bin/sh\n{dump}\necho "$0 $A" >> {out}\nE', f"RUN --mount=type=secret,id=no {dump}",
            f"RUN --mount={mount} ls -l /m* | wc -l > {out}; {dump}x",
        ) + "\n"  # fmt: skip
    case.arguments = case.one({}, {"A": "ba"}, {"G": "bg", "HTTP_PROXY": "http://p"}, {"no_proxy": "h"})
    return text


def scopes(case: Case) -> str:
    """ARG and ENV of the same few names, before and in stages that stand on each other."""
    names, text = ("A", "B", "C"), ""

    def declared() -> str:
        name = case.one(*names)
        value = case.one("", f"={case.one('x', 'y', '')}", f"=${case.one(*names)}", f"=${{{case.one(*names)}:-d}}", f"=${case.one(*names)}-{case.one(*names)}")
        return case.one(f"ARG {name}{value}\n", f"ARG {name}{value}\n", f"ENV {name}{value or '=e'}\n")

    def shown() -> str:
        values = " ".join(f"{name}=${name}" for name in names)
        return case.one(f'RUN echo "{values}" >> /shown\n', f'LABEL l{case.draw.randint(0, 9)}="{values}"\n', "RUN env | grep ^[ABC]= | sort >> /shown; true\n")

    for _ in range(case.draw.randint(0, 3)):
        text += declared().replace("ENV", "ARG")
    stages = case.draw.randint(1, 4)
    for number in range(stages):
        start = case.one("base/busybox:1", *(f"s{other}" for other in range(number)))
        text += f"FROM {start} AS s{number}\n"
        for _ in range(case.draw.randint(1, 6)):
            text += case.one(declared, declared, shown)()
        text += shown() + case.one("", "", f"ONBUILD {declared()}", f"ONBUILD {shown()}")
    case.arguments = {name: case.one("b", "", "c") for name in names if case.chance(0.25)}
    return text


def instructions(case: Case) -> str:
    """Lines of every kind, also wrong ones."""
    head = case.one("", "", "", "# escape=`\n", "\ufeff", "# check=skip=all\n", "#escape=\\\n", "# foo=bar\n", "\n\n")
    text = head + case.one("", "ARG X=glob\n", "ARG X\n") + "FROM scratch AS s\n" + case.one("ARG X=xv\n", "ENV X=xv\n", "ARG X\n", "")
    text += "".join(_line(case) + "\n" for _ in range(case.draw.randint(1, 5)))
    return text.replace("\n", "\r\n") if case.chance(0.3) else text


def _line(case: Case) -> str:
    one = case.one
    words = (
        "a", "b=c", '"q r"', "'s t'", "a\\ b", "$X", "${X}", "${U:-d e}", "\\$X", 'x"y"z', "#h", "é", '\\"', "a=b=c", '""', "\'\'", "a\\\\b", "*", "|", "&&",
        "`", "{a}", "!", "a;b",
    )  # fmt: skip
    word, more = one(*words), one(*words)
    array = json.dumps(case.draw.choices(("a", "b c", "", "$X", "é", "\\", '"q"', "-c", "/bin/sh"), k=case.draw.randint(0, 3)), ensure_ascii=case.chance(0.5))
    array = one(array, array, array, array.replace('"', "'"), array + " ", array[:-1], array + " x", array.replace(",", " ,\\\n"), array.replace("[", "[ "))
    words_of = {
        "CMD": (array, word, f"{word} {more}"), "ENTRYPOINT": (array, word, f"{word} {more}"), "SHELL": (array, word),
        "ENV": (f"A={word}", f"A={word} B={more}", f"A {word} {more}", f"A = {word}", f"A={word} {more}", f"$X={word}", "X=1 Y=$X", '"A B"=1', "A", "=b", "A= ", "'a'=b"),
        "LABEL": (f"a={word}", f"a={word} b={more}", f"a {word} {more}", f'"a b"={word}', f"$X={word}", f"a={word} a={more}", "a", "'x y'=z", f"{word}={more}", "=x"),
        "EXPOSE": ("80", "80/udp 81", "80-82/udp", "8000:80", "$X", "${P:-99}", "0", "65536", "80/TCP", "80/foo", "82-80", "127.0.0.1:80:80", "80/", "/tcp", "80-", '"80"', "80,81"),
        "VOLUME": (array, "/a", "/a /b", "/a/ /b/../c", "rel", "$X", '"/a b"', "/a\\ b", word, "//x", "/"),
        "USER": ("a", "a:b", "1000:1000", "$X", '"a b"', "a b", ":5", "a:", word), "MAINTAINER": ("a", "a b <c@d>", '"x"', "$X", ""),
        "WORKDIR": ("/a", "b", "../c", "/a/../b", "$X", "/x y", '"/q r"', "/a//b/", ".", "/", "c:\\x", word, "/a/./b", "~"),
        "STOPSIGNAL": ("9", "SIGTERM", "TERM", "sigkill", "SIGFOO", "0", "65", "SIGRTMIN+3", "-1", "$X", '"9"', "SIGRTMAX-1", "9 9"),
        "HEALTHCHECK": ("NONE", "none", "CMD a b", f"CMD {array}", "--interval=5s --timeout=1m --start-period=2s --retries=3 --start-interval=1s CMD a", "--retries=-1 CMD a",
                        "--interval=0 CMD a", "--interval=100us CMD a", "--interval=x CMD a", "--interval=1.5h CMD a", "NONE x", "CMD", "a b", "--foo=1 CMD a", "--timeout= CMD a"),
        "ONBUILD": ("RUN x", "run x", "ENV a=b", "ONBUILD RUN x", "FROM x", "COPY a b", "FOO x", "", "LABEL a=$X", "EXPOSE 80/foo", "SHELL x", "ENV a", "ARG", "RUN <<E\nhi\nE"),
        "ARG": ("A", "A=b", "A=b B=c", "A=$X", 'A="x y"', "A=", "A=${X:-z}", "1A=b", "A b=c", "X=$X", "=", "TARGETARCH", "TARGETPLATFORM=q", "HTTP_PROXY"),
        "FROM": ("scratch", "scratch AS b", "s", "S", "scratch as x y", "--platform=$TARGETPLATFORM scratch", "--platform=foo scratch", "$X", "scratch AS 1b", "scratch AS B",
                 "--foo scratch", "${B:-s}", 'scratch AS "b"', '"scratch"', "scratch AS scratch", "--platform= scratch", "a b", "a AS"),
        "COPY": ("Dockerfile /x/", '["Dockerfile", "/x/"]', "Dockerfile", "--from=s Dockerfile /", "--from=9 a b", "--chown=$X Dockerfile /q", "--chmod= Dockerfile /q",
                 "--link=x Dockerfile /q", "--exclude= Dockerfile /q", "--CHOWN=1 Dockerfile /q", "-- Dockerfile /q", "--chown=1 --chown=2 Dockerfile /q", "<<E /h\nb $X\nE",
                 "<<'E' /h\nb $X\nE", "<<-E /h\n\tb\n\tE", "<<E <<F /hh/\n1\nE\n2\nF", "<<E /h\nnoend", "<<E\nx\nE", "Dockerfile <<E /m/\nx\nE", "nope /x"),
        "ADD": ("--checksum=sha256:x http://files.invalid/a /y", "--keep-git-dir=true Dockerfile /x", "--unpack Dockerfile /x", "[]", "--from=s Dockerfile /x", ""),
        "FOO": ("bar",), "": ("# c", "  # c", "\t", "#"),
    }  # fmt: skip
    keyword = one(*words_of)
    blank = one(" ", " ", "  ", "\t", " \\\n  ", " \\\n# c\n ", " \\\n\n")
    return (one(keyword, keyword, keyword.lower()) + blank if keyword else "") + one(*words_of[keyword])


KINDS: dict[str, Callable[[Case], str]] = {
    function.__name__: function for function in (copies, links, ignores, expansions, files, archives, triggers, runs, scopes, instructions)
}


def main(kind: str, seed: str, count: str, directory: str) -> None:
    """Write the cases."""
    for name in KINDS if kind == "all" else (kind,):
        for number in range(int(count)):
            case = Case(random.Random(f"{name} {seed} {number}"))
            text = KINDS[name](case)
            case.write(Path(directory, f"{name}-{seed}-{number:03d}"), text)


if __name__ == "__main__":
    main(*sys.argv[1:])
