"""Descriptors, manifests, indexes, configurations: round trips, raw bytes kept, and hostile JSON."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpy.errors import ContentError
from kpy.oci import config, manifest, mediatype
from kpy.oci.config import Healthcheck, History, ImageConfig, RuntimeConfig
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.image import Layer, chain_id
from kpy.oci.manifest import Index, Manifest, build_index, build_manifest
from kpy.oci.platform import Platform

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
DIGESTS = st.binary(max_size=8).map(Digest.of)
PLATFORMS = st.sampled_from([Platform("linux", "amd64"), Platform("linux", "arm", "v7"), Platform("windows", "amd64", "", "10.0.1")])
MAPS = st.dictionaries(TEXT, TEXT, max_size=3)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)
DESCRIPTORS = st.builds(
    Descriptor,
    st.sampled_from([mediatype.OCI_LAYER_GZIP, mediatype.OCI_MANIFEST, "x/y"]),
    DIGESTS,
    st.integers(0, 2**62),
    platform=st.none() | PLATFORMS,
    annotations=MAPS,
    artifact_type=TEXT,
    urls=st.lists(TEXT, max_size=2).map(tuple),
)
WORDS = st.lists(TEXT, max_size=3).map(tuple)
SORTED = st.lists(TEXT, max_size=3, unique=True).map(lambda items: tuple(sorted(items)))
UNKNOWN = st.dictionaries(st.from_regex(r"x[a-z]{1,5}", fullmatch=True), JSON, max_size=2)
RUNTIMES = st.builds(
    RuntimeConfig,
    env=WORDS,
    cmd=st.none() | WORDS,
    entrypoint=st.none() | WORDS,
    user=TEXT,
    workdir=TEXT,
    labels=MAPS,
    exposed_ports=SORTED,
    volumes=SORTED,
    stop_signal=TEXT,
    healthcheck=st.none() | st.builds(Healthcheck, WORDS, st.integers(0, 10**12), retries=st.integers(0, 9)),
    shell=st.none() | WORDS,
    onbuild=WORDS,
    args_escaped=st.booleans(),
    extra=UNKNOWN,
)
HISTORY = st.builds(History, TEXT, TEXT, TEXT, TEXT, st.booleans())
CONFIGS = st.builds(
    ImageConfig,
    platform=PLATFORMS,
    runtime=RUNTIMES,
    diff_ids=st.lists(DIGESTS, max_size=3).map(tuple),
    history=st.lists(HISTORY, max_size=3).map(tuple),
    created=TEXT,
    author=TEXT,
    extra=UNKNOWN,
)


@given(DESCRIPTORS)
def test_a_descriptor_reads_back(descriptor: Descriptor) -> None:
    assert Descriptor.from_json(json.loads(json.dumps(descriptor.to_json()))) == descriptor


@settings(deadline=None)
@given(CONFIGS)
def test_a_configuration_reads_back(image: ImageConfig) -> None:
    raw = image.encode()
    assert config.parse(raw) == image
    assert config.parse(raw).encode() == raw


@given(DESCRIPTORS, st.lists(DESCRIPTORS, max_size=3), MAPS, st.none() | DESCRIPTORS)
def test_a_manifest_reads_back(described: Descriptor, layers: list[Descriptor], annotations: dict[str, str], subject: Descriptor | None) -> None:
    made = build_manifest(described, layers, annotations=annotations, subject=subject, artifact_type="a/b")
    assert manifest.parse(made.raw) == made
    assert manifest.parse(made.raw, made.media_type).descriptor.digest == Digest.of(made.raw)


@given(st.lists(DESCRIPTORS, max_size=3), MAPS)
def test_an_index_reads_back(entries: list[Descriptor], annotations: dict[str, str]) -> None:
    made = build_index(entries, annotations=annotations)
    assert manifest.parse(made.raw, mediatype.OCI_INDEX) == made


def test_raw_bytes_are_kept() -> None:
    plain = build_manifest(Descriptor(mediatype.OCI_CONFIG, Digest.of(b""), 0), [])
    raw = json.dumps({**json.loads(plain.raw), "unknown": [1]}, indent=3).encode()
    found = manifest.parse(raw)
    assert found.raw == raw
    assert found.descriptor == Descriptor(mediatype.OCI_MANIFEST, Digest.of(raw), len(raw))


def test_unknown_fields_of_a_configuration_survive() -> None:
    raw = b'{"os":"linux","architecture":"amd64","os.features":["x"],"config":{"Memory":7,"Hostname":"h"},"container":"c","moby.x":{"a":1}}'
    found = json.loads(config.parse(raw).encode())
    assert (found["os.features"], found["moby.x"], found["config"]) == (["x"], {"a": 1}, {"Memory": 7})
    assert "container" not in found, "it describes one container of docker's legacy builder"


def test_an_own_field_is_never_replaced_by_an_unknown_one() -> None:
    sly = RuntimeConfig(user="app", extra={"User": "root"})
    assert json.loads(ImageConfig(Platform("linux", "amd64"), sly).encode())["config"]["User"] == "app"


def test_bytes_that_are_no_unicode_become_the_replacement_character() -> None:
    """As in Go; a label of a Dockerfile that is not UTF-8 must not make JSON that nobody can read."""
    image = ImageConfig(Platform("linux", "amd64"), RuntimeConfig(labels={"a": "\udcff\ud800"}))
    assert config.parse(image.encode()).runtime.labels == {"a": "\ufffd\ufffd"}


DEEP = b'{"config":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
LESS_DEEP = b'{"x":' + b"[" * 900 + b"]" * 900 + b"}"


@pytest.mark.parametrize("raw", [b"", b"\xff", b"[]", b"null", b"1", b'"x"', b"{", DEEP, LESS_DEEP, b'{"x":NaN}', b'{"x":-Infinity}', b'{"x":' + b"1" * 5000 + b"}"])
def test_no_document(raw: bytes) -> None:
    for parse in (config.parse, manifest.parse):
        with pytest.raises(ContentError):
            parse(raw)


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_document_or_a_content_error(raw: bytes) -> None:
    for parse in (config.parse, manifest.parse):
        try:
            parse(raw)
        except ContentError:
            pass


CONFIG_KEYS = ["created", "author", "architecture", "os", "os.version", "variant", "config", "rootfs", "history"]
RUNTIME_KEYS = ["Env", "Cmd", "Entrypoint", "User", "WorkingDir", "Labels", "ExposedPorts", "Volumes", "StopSignal", "Healthcheck", "Shell", "OnBuild", "ArgsEscaped"]


@given(st.dictionaries(st.sampled_from(CONFIG_KEYS), JSON), st.dictionaries(st.sampled_from(RUNTIME_KEYS), JSON))
def test_wrong_types_in_a_configuration(fields: dict[str, Any], runtime: dict[str, Any]) -> None:
    for data in (fields, {**fields, "config": runtime}, {"config": runtime}):
        try:
            found = config.parse(json.dumps(data).encode())
        except ContentError:
            continue
        assert config.parse(found.encode()) == found


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"history": 5}, "history is not a list"),
        ({"history": {"a": 1}}, "history is not a list"),
        ({"history": [{"created_by": 1}]}, "created_by is not a string"),
        ({"os": ["linux"]}, "os is not a string"),
        ({"rootfs": []} | {"config": []}, "config is not an object"),
        ({"rootfs": {"diff_ids": ["x"]}}, "invalid digest"),
        ({"rootfs": {"diff_ids": "x"}}, "diff_ids is not a list of strings"),
        ({"config": {"User": {"a": 1}}}, "User is not a string"),
        ({"config": {"Labels": {"a": 1}}}, "a is not a string"),
        ({"config": {"Labels": [1]}}, "Labels is not an object"),
        ({"config": {"Cmd": "sh"}}, "Cmd is not a list of strings"),
        ({"config": {"Env": [1]}}, "Env is not a list of strings"),
        ({"config": {"Volumes": ["/a"]}}, "Volumes is not an object"),
    ],
)
def test_what_is_wrong_with_a_configuration(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ContentError, match=words):
        config.parse(json.dumps(fields).encode())


def test_go_writes_null_for_what_is_empty() -> None:
    raw = b'{"os":"linux","architecture":"amd64","config":{"Env":null,"Cmd":null,"Labels":null,"Volumes":null,"User":""},"rootfs":{"diff_ids":null},"history":null}'
    assert config.parse(raw) == ImageConfig(Platform("linux", "amd64"))
    assert manifest.parse(b'{"schemaVersion":2,"manifests":null,"annotations":null}') == Index(
        b'{"schemaVersion":2,"manifests":null,"annotations":null}', mediatype.OCI_INDEX, ()
    )


ENTRY = {"mediaType": "x/y", "digest": str(Digest.of(b"")), "size": 0}


@given(st.dictionaries(st.sampled_from([*ENTRY, "platform", "annotations", "urls", "artifactType"]), JSON))
def test_any_object_is_a_descriptor_or_a_content_error(data: dict[str, Any]) -> None:
    for item in (data, {**ENTRY, **data}, data.get("platform")):
        try:
            found = Descriptor.from_json(item)
        except ContentError:
            continue
        assert Descriptor.from_json(found.to_json()) == found


@pytest.mark.parametrize("size", [-1, "1", 1.0, True, None])
def test_sizes_are_numbers(size: object) -> None:
    with pytest.raises(ContentError, match="digest and size"):
        Descriptor.from_json({**ENTRY, "size": size})


@pytest.mark.parametrize(
    ("fields", "media_type", "words"),
    [
        ({"schemaVersion": 1}, "", "schema 1"),
        ({}, mediatype.DOCKER_SCHEMA1[1], "schema 1"),
        ({"config": ENTRY, "manifests": []}, "", "both an image and an index"),
        ({"layers": [], "manifests": []}, mediatype.OCI_INDEX, "both an image and an index"),
        ({"mediaType": mediatype.OCI_INDEX}, mediatype.OCI_MANIFEST, "says it is"),
        ({"mediaType": "x/y", "config": ENTRY}, "", "neither"),
        ({"layers": []}, "", "no config"),
        ({"config": ENTRY, "layers": {}}, "", "layers is not a list"),
        ({"config": ENTRY, "layers": [1]}, "", "not an object"),
        ({"config": 1}, "", "not an object"),
        ({"config": ENTRY, "subject": 5}, "", "not an object"),
    ],
)
def test_what_is_wrong_with_a_manifest(fields: dict[str, Any], media_type: str, words: str) -> None:
    with pytest.raises(ContentError, match=words):
        manifest.parse(json.dumps({"schemaVersion": 2, **fields}).encode(), media_type)


def test_documents_have_a_largest_size() -> None:
    with pytest.raises(ContentError, match="larger than 4 MiB"):
        manifest.parse(b" " * (mediatype.MAX_MANIFEST_SIZE + 1))
    with pytest.raises(ContentError, match="larger than 8 MiB"):
        config.parse(b" " * (mediatype.MAX_CONFIG_SIZE + 1))


def test_a_content_type_with_parameters() -> None:
    raw = build_manifest(Descriptor(mediatype.OCI_CONFIG, Digest.of(b""), 0), []).raw
    assert isinstance(manifest.parse(raw, mediatype.OCI_MANIFEST + "; charset=utf-8"), Manifest)


def test_environment() -> None:
    runtime = RuntimeConfig(env=("A=1", "B=2", "A=3"))
    assert (runtime.getenv("A"), runtime.getenv("B"), runtime.getenv("C")) == ("3", "2", None)
    assert runtime.with_env("B", "x=y").env == ("A=1", "B=x=y", "A=3")
    assert runtime.with_env("C", "").env[-1] == "C="


def test_chain_ids() -> None:
    """OCI image-spec, config.md#layer-chainid."""
    one, two = (Layer(Descriptor("", Digest.of(b""), 0), Digest.of(data)) for data in (b"1", b"2"))
    assert chain_id(()) is None
    assert chain_id((one,)) == one.diff_id
    assert chain_id((one, two)) == Digest.of(f"{one.diff_id} {two.diff_id}".encode())


@pytest.mark.parametrize(
    ("media_type", "compression", "docker", "foreign"),
    [
        (mediatype.OCI_LAYER, "", False, False),
        (mediatype.OCI_LAYER_ZSTD, "zstd", False, False),
        (mediatype.DOCKER_LAYER_GZIP, "gzip", True, False),
        (mediatype.DOCKER_FOREIGN_GZIP, "gzip", True, True),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "gzip", False, True),
    ],
)
def test_media_types(media_type: str, compression: str, docker: bool, foreign: bool) -> None:
    """N25, L13."""
    assert mediatype.layer_compression(media_type) == compression
    assert mediatype.is_docker(media_type) == docker
    assert mediatype.is_foreign(media_type) == foreign
    if not foreign and compression != "zstd":
        there = mediatype.as_oci_layer(mediatype.as_docker_layer(media_type))
        assert there == mediatype.as_oci_layer(media_type)
