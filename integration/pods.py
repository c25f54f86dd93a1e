"""Pods of Kubernetes manifests, run by Debian's podman: its `kube play` stands in for a kubelet."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import servers
import yaml

# Podman asks for more files and processes than a container that runs these tests may grant.
_CONF = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


@dataclass(frozen=True)
class Podman:
    """A podman with images, volumes and secrets of its own. `image` is the one that pods run."""

    directory: Path
    image: str

    def __call__(self, *argv: str, check: bool = True, stdin: bytes = b"", timeout: float = 300) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            [servers.tool("podman"), "--root", str(self.directory / "root"), "--runroot", str(self.directory / "run"), *argv],
            input=stdin, capture_output=True, timeout=timeout, check=False,
            env={**os.environ, "CONTAINERS_CONF": str(self.directory / "containers.conf")},
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"podman {' '.join(argv)}: exit code {done.returncode}\n{done.stdout!r}\n{done.stderr.decode()}")
        return done

    def volumes(self, names: Sequence[str]) -> dict[str, Path]:
        """Volumes as a kubelet makes an emptyDir, open to all; where they are on this machine."""
        new = [name for name in names if self("volume", "exists", name, check=False).returncode]
        for name in new:
            self("volume", "create", name)
        if new:  # when it first mounts one, podman gives it the content and mode of what is below
            mounts = [word for name in new for word in ("--volume", f"{name}:/none/{name}")]
            self("run", "--rm", "--network", "host", *mounts, self.image, "--version")
        found = {}
        for name in names:
            found[name] = Path(self("volume", "inspect", "--format", "{{.Mountpoint}}", name).stdout.decode().strip())
            found[name].chmod(0o777)
        return found

    def volume(self, name: str, files: Mapping[str, str] | None = None) -> Path:
        """One volume, with these files in it."""
        path = self.volumes([name])[name]
        for file, text in (files or {}).items():
            (path / file).write_text(text)
        return path

    @contextmanager
    def started(self, job: str, secrets: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
        """The pod of a Job's manifest, on the host's network; the name of its container. Removed at the end."""
        manifest = yaml.safe_load(job)
        pod = pod_of(manifest)
        empty = [volume["name"] for volume in pod["spec"]["volumes"] if "emptyDir" in volume]
        empty += self._project(pod["spec"]["volumes"], secrets)
        self.volumes(empty)
        path = self.directory / f"{manifest['metadata']['name']}.yaml"
        path.write_text(yaml.safe_dump(pod))
        try:
            self("kube", "play", "--network", "host", str(path))
            yield f"{pod['metadata']['name']}-kpy"
        finally:
            self("kube", "down", str(path), check=False)
            if empty:
                self("volume", "rm", "--force", *empty, check=False)

    def _project(self, volumes: list[dict[str, Any]], secrets: Mapping[str, Mapping[str, str]]) -> list[str]:
        """Make volumes of Secrets, as a kubelet does; podman 4.3 neither decodes them nor knows `items`."""
        made = []
        for volume in volumes:
            if "secret" in volume:
                source = volume.pop("secret")
                values = secrets[source["secretName"]]
                self.volume(volume["name"], {item["path"]: values[item["key"]] for item in source["items"]})
                volume["persistentVolumeClaim"] = {"claimName": volume["name"]}
                made.append(volume["name"])
        return made

    def attached(self, job: str, secrets: Mapping[str, Mapping[str, str]], stdin: bytes) -> tuple[int, str]:
        """Its container, with what `kubectl attach -i` would send. By `podman run`: 4.3's pods have no standard input."""
        pod = pod_of(yaml.safe_load(job))["spec"]
        container, whole = pod["containers"][0], pod["securityContext"]
        assert container["stdin"]
        volumes = [volume["name"] for volume in pod["volumes"] if "emptyDir" in volume] + self._project(pod["volumes"], secrets)
        self.volumes(volumes)
        options = ["--user", f"{whole['runAsUser']}:{whole['runAsGroup']}", "--workdir", container["workingDir"]]
        options += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
        options += [word for item in container["env"] for word in ("--env", f"{item['name']}={item['value']}")]
        options += [word for item in container["volumeMounts"] for word in ("--volume", f"{item['name']}:{item['mountPath']}")]
        done = self(
            "run", "--rm", "--interactive", "--network", "host", *options, container["image"], *container["args"],
            check=False, stdin=stdin,
        )  # fmt: skip
        self("volume", "rm", "--force", *volumes)
        return done.returncode, done.stdout.decode() + done.stderr.decode()

    def run(self, job: str, secrets: Mapping[str, Mapping[str, str]]) -> tuple[int, str]:
        """Run it to its end; exit code and log."""
        with self.started(job, secrets) as name:
            self("wait", name)
            code = int(json.loads(self("inspect", name).stdout)[0]["State"]["ExitCode"])
            done = self("logs", name)
            return code, done.stdout.decode() + done.stderr.decode()


def pod_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """The pod that the controller would make: podman 4.3 knows no Jobs."""
    metadata = {"name": manifest["metadata"]["name"], "labels": manifest["metadata"]["labels"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": manifest["spec"]["template"]["spec"]}


@contextmanager
def podman(directory: Path, docker: servers.Docker, image: str) -> Iterator[Podman]:
    """A podman that has this image of the docker engine's."""
    servers.tool("catatonit")  # what podman holds pods with
    directory.mkdir(parents=True)
    (directory / "containers.conf").write_text(_CONF)
    found = Podman(directory, f"localhost/{image}")
    archive = directory / "image.tar"
    docker("save", "--output", str(archive), image)
    found("load", "--input", str(archive))
    archive.unlink()
    try:
        yield found
    finally:
        found("pod", "rm", "--all", "--force", check=False)
        # Not `system reset`: it would remove the networks of every podman here.
        subprocess.run(["umount", "--lazy", str(directory / "root" / "overlay")], capture_output=True, check=False)
        shutil.rmtree(directory, ignore_errors=True)
