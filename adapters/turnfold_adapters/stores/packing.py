"""Several bodies in one database value: each after its length in 8 bytes."""

from collections.abc import Sequence


def packed(bodies: Sequence[bytes]) -> bytes | None:
    """The value for these bodies; None for no body."""
    if not bodies:
        return None
    return b"".join(len(body).to_bytes(8, "big") + body for body in bodies)


def unpacked(data: bytes) -> tuple[bytes, ...]:
    bodies, start = [], 0
    while start < len(data):
        end = start + 8 + int.from_bytes(data[start : start + 8], "big")
        bodies.append(data[start + 8 : end])
        start = end
    return tuple(bodies)
