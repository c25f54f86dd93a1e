"""--mount and --device of RUN (R12-R18)."""

import pytest

from kpy.dockerfile.forms import FormError
from kpy.dockerfile.instructions import Mount
from kpy.dockerfile.mounts import check_mount, parse_device, parse_mount
from kpy.dockerfile.span import Source, Span
from kpy.errors import DockerfileError

SPAN = Span(Source("Dockerfile", ("FROM a", "RUN x")), 2, 2)


def test_keys_and_their_other_names() -> None:
    assert parse_mount("target=/a") == Mount(target="/a")  # R13: bind is the default
    assert parse_mount("TYPE=Cache,dst=/a,id=x,sharing=Locked") == Mount("cache", target="/a", id="x", sharing="locked")
    assert parse_mount("src=/s,destination=/a,from=base,rw").read_only is False
    assert parse_mount("target=/a,readwrite=false").read_only is True
    assert parse_mount("target=/a,ro=0").read_only is False
    assert parse_mount("type=secret,id=a,required").required is True
    assert parse_mount("type=ssh,required=F").required is False
    assert parse_mount('type=cache,"target=/a,b"').target == "/a,b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("typ=tmpfs", "unexpected key 'typ' in 'typ=tmpfs'"),
        ("type=tmp", 'unsupported mount type "tmp"'),
        ("type=cache,sharing=share", 'unsupported sharing value "share"'),
        ("target", "invalid field 'target' must be a key=value pair"),
        ("foo", "invalid field 'foo'"),
        ("from=$x,type=cache", "'from' doesn't support variable expansion"),
        ("size=1m,type=tmpfs", "unexpected key 'size' for mount type 'bind'"),
        ("required,type=secret,id=a", "unexpected key 'required' for mount type 'bind'"),
        ("type=cache,size=1", "unexpected key 'size'"),
        ("type=tmpfs,size=x", "invalid value for size"),
        ("type=bind,uid=1", "uid not allowed for 'bind'"),
        ("type=tmpfs,mode=1", "mode not allowed"),
        ("type=cache,mode=9", "invalid value '9' for mode"),
        ("type=cache,gid=-1", "invalid value '-1' for gid"),
        ("type=cache,uid=4294967296", "invalid value"),
        ("ro=maybe", "invalid value for ro"),
        ("ro=$x", "invalid value for ro"),
        ("type=secret", "one of id, source, target is required"),
        ("type=secret,id=a,from=b", "it can not have a from"),
        ("type=secret,id=a,src=b", "both source and id"),
        ("type=bind,env=X", "unexpected key 'env'"),
        ("target=/a,sharing=private", "invalid cache sharing"),
        ('a"b', "csv"),
        ('"a', "csv"),
        ("", "missing a value"),
    ],
)
def test_bad_mounts(text: str, message: str) -> None:
    with pytest.raises(FormError, match=message.replace("$", "\\$")):
        parse_mount(text)


def test_values_with_variables_are_checked_after_expansion() -> None:
    late = parse_mount("type=$T,id=x,target=$D,mode=$M,size=$S")
    assert (late.kind, late.mode) == ("$T", "$M")
    assert check_mount(Mount("Cache", target="/a", mode="0700", sharing="Private"), SPAN) == Mount(
        "cache", target="/a", mode="0700", sharing="private"
    )
    with pytest.raises(DockerfileError, match="unsupported mount type") as caught:
        check_mount(late, SPAN)
    assert caught.value.first_line == 2
    with pytest.raises(DockerfileError, match="unexpected key 'size'"):
        check_mount(Mount("cache", size="1m"), SPAN)


def test_devices() -> None:
    assert parse_device("vendor.com/gpu=all,required") == ("vendor.com/gpu=all", True)
    assert parse_device("name=x,required=false") == ("x", False)
    for text in ("a,b", "name=a,name=b", "a,colour=b", "a,required=x"):
        with pytest.raises(FormError):
            parse_device(text)
