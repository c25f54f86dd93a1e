"""How much the layers of somebody else's image may ask for. Knows nothing of where they come from."""

from dataclasses import dataclass

from kpy.errors import ContentError, TooLargeError

SMALL = 1 << 30
"""What unpacks to no more is never a matter of its ratio: an empty database of some hundred MiB is nearly nothing, packed."""


@dataclass(frozen=True, slots=True)
class LayerLimits:
    """`size`: bytes of one layer's files; `ratio`: so many times what the layer has packed; `layers`: of one image. 0 is no
    limit. The errors name the flags of the command line that set them."""

    size: int = 64 << 30
    ratio: int = 200
    layers: int = 1000

    def allowed(self, packed: int) -> int | None:
        """The bytes that a layer of so many may unpack to; None for any number."""
        bounds = [self.size] * bool(self.size) + [max(SMALL, self.ratio * packed)] * bool(self.ratio)
        return min(bounds, default=None)

    def error(self, digest: object, packed: int) -> TooLargeError:
        """For a layer that unpacks to more."""
        allowed = self.allowed(packed) or 0
        if allowed == self.size:
            text, flag = shown_size(allowed), "--max-layer-size"
        else:
            text, flag = f"{shown_size(allowed)}, {allowed // max(packed, 1)} times its {shown_size(packed)}", "--max-layer-ratio"
        return TooLargeError(
            f"layer {digest} unpacks to more than {text}", hint=f"if you trust the image, {flag} allows more (0: any)"
        )

    def check_count(self, count: int, name: str) -> None:
        """Raise ContentError for an image with too many layers."""
        if self.layers and count > self.layers:
            raise ContentError(
                f"{name} has {count} layers, more than the {self.layers} that are allowed",
                hint="if you trust the image, --max-layers allows more (0: any)",
            )


def shown_size(size: int) -> str:
    """Bytes for people: `64 GiB`, `1.5 GiB`, `300 bytes`."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f}".removesuffix(".0") + f" {name}"
    return f"{size} bytes"
