"""Which messages of a large federation are recorded: a uniform sample of client and round.

What bounds a rate is how many independent updates are attacked, not how many there were; 300 of a
million settle what 300 of a thousand do (`docs/scale.md`). Whether a message is in the sample is a
hash of client, round and the moment at which the capture began. So all processes that record into
it agree, whoever goes on with it does, and nobody knew it when the clients were named.
"""

from hashlib import blake2b

from fedaudit.captures.format.capture_manifest import Manifest


def drawn(manifest: Manifest, round: int, client: str) -> bool:
    """Whether a client's message in a round is recorded; all are where nothing else is stated.

    Args:
        manifest: Of the capture, whose facts may state `sampled`.
        round: Number of the round.
        client: Its name.
    """
    share = manifest.facts.sampled
    if share is None:
        return True
    place = f"{manifest.created}\0{round}\0{client}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(place, digest_size=8).digest(), "big") < share * 2**64
