"""X25519: two clients agree on a secret that the server who relays their keys does not learn.

The Montgomery ladder of RFC 7748 (Langley et al. 2016) in Python's integers: for simulations. It
does not run in constant time; to protect real updates, use a library that does.
"""

PRIME = 2**255 - 19
_A24 = 121665
BASE = (9).to_bytes(32, "little")
"""The u coordinate of the base point."""


def public_key(secret: bytes) -> bytes:
    """What a client publishes, 32 bytes, of 32 secret ones."""
    return agreed(secret, BASE)


def agreed(secret: bytes, public: bytes) -> bytes:
    """The 32 bytes that the owner of `secret` shares with the owner of `public`."""
    scalar = int.from_bytes(secret, "little")
    scalar = scalar & ~7 & (2**255 - 1) | 2**254  # RFC 7748, section 5
    x1 = int.from_bytes(public, "little") & (2**255 - 1)
    x2, z2, x3, z3, swap = 1, 0, x1, 1, 0
    for place in reversed(range(255)):
        bit = scalar >> place & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        da, cb, aa, bb = d * a % PRIME, c * b % PRIME, a * a % PRIME, b * b % PRIME
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % PRIME, x1 * (da - cb) ** 2 % PRIME
        x2, z2 = aa * bb % PRIME, e * (aa + _A24 * e) % PRIME
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, PRIME - 2, PRIME) % PRIME).to_bytes(32, "little")
