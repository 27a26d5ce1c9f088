"""Deflates short records that are much alike, thousands of which are kept.

Alone such a record hardly gets shorter: its words come once each. So each is deflated as if others
of its kind, and what its holder knows of it anyway, stood before it: a preset dictionary (RFC 1950,
section 2.2). Those others are the last that were deflated when there had been 1, 2, 4, 8 … of them,
so that the dictionaries follow what is there by now, and stay few.

Seen with containers of Kubernetes, each with a pod, an image and five labels: 541 bytes become 138,
which takes 10 to 15 µs, and 3 µs the other way.
"""

from __future__ import annotations

import zlib

_DICTIONARY_BYTES = 1024
"""Twice as much made them 2 % shorter."""

# Raw, without a header and a checksum: the bytes never leave the process. A window of 8 KiB, and
# little memory beside, for what is this short.
_WINDOW_BITS, _MEMORY_LEVEL = -13, 2


class Deflater:
    """Deflates, and inflates what it deflated itself."""

    def __init__(self) -> None:
        self._dictionaries = [b""]
        self._latest = b""
        self._count = 0

    def deflate(self, plain: bytes, known: bytes) -> bytes:
        """Return it deflated; `known` are bytes that will be at hand again to inflate it."""
        number = len(self._dictionaries) - 1
        deflate = zlib.compressobj(
            wbits=_WINDOW_BITS, memLevel=_MEMORY_LEVEL, zdict=self._dictionaries[number] + known
        )
        deflated = b"%c%b%b" % (number, deflate.compress(plain), deflate.flush())
        self._latest = (self._latest + plain)[-_DICTIONARY_BYTES:]
        self._count += 1
        if self._count == 1 << number:
            self._dictionaries.append(self._latest)
        return deflated

    def inflate(self, deflated: bytes, known: bytes) -> bytes:
        """Return what was deflated with the same `known`."""
        dictionary = self._dictionaries[deflated[0]] + known
        return zlib.decompressobj(wbits=_WINDOW_BITS, zdict=dictionary).decompress(deflated[1:])
