"""--squash with real layers: the image is the same to everybody who unpacks it (L10)."""

from pathlib import Path

import pytest
import trees
from people import Kpy
from servers import Registry

DOCKERFILE = """FROM {base}
WORKDIR /app
COPY Dockerfile .
RUN mkdir -p /d/e && echo x > /d/e/f && ln /d/e/f /d/g && ln -s e/f /d/l && chmod 711 /d/e/f && chown 5:6 /d/e
RUN rm -r /d/e && mkdir /d/e && chmod 1777 /d/e && echo y >> /d/g && rm /etc/group && chmod 700 /root
RUN rm -r /bin/ls /tmp; touch -d @1 /d/z && chmod 6711 /d/z && head -c 3000000 /dev/urandom > /large
CMD ["true"]
"""


@pytest.mark.parametrize(("squash", "layers"), [("--squash", 1), ("--squash=all", 0), ("--squash=5..6", 4)])
def test_it_unpacks_to_the_same(
    kpy: Kpy, registry: Registry, busybox_base: str, workdir: Path, squash: str, layers: int
) -> None:
    workdir.chmod(0o755)
    context = workdir / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(DOCKERFILE.format(base=busybox_base))
    plain, one = f"{registry.host}/squash/plain:1", f"{registry.host}/squash/one:1"
    kpy("build", "--push", "-t", plain, context)

    first = kpy("build", "--push", "-t", one, squash, context)
    again = kpy("build", "--push", "-t", one, squash, context)

    base = 0 if squash.endswith("all") else len(trees.layers(busybox_base))
    assert len(trees.layers(one)) == max(base + layers, 1)
    assert trees.layers(one)[:base] == trees.layers(busybox_base)[:base]
    assert trees.described(one, workdir / "one") == trees.described(plain, workdir / "plain")
    assert again.stdout == first.stdout
    assert "CACHED" in again.stderr
    config = trees.inspect(one, "--config")
    assert config["config"] == trees.inspect(plain, "--config")["config"]
    assert [item["created_by"] for item in config["history"] if "created_by" in item] == [
        item["created_by"] for item in trees.inspect(plain, "--config")["history"]
    ]
