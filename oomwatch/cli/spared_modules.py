"""Keeps from the daemon what asyncio and shutil would import, and it never asks of them.

`import asyncio` imports ssl, and that OpenSSL; `import shutil` imports bz2 and lzma. Together they
are 4.3 MiB of resident memory, a tenth of the daemon's. Its TLS is gRPC's own, it serves metrics in
plain text, and unpacks no archive. Both modules are made to do without, since a Python may be built
without those libraries; whoever wants TLS of asyncio all the same is told so by a RuntimeError.

Whatever imports ssl later still gets it: the Docker SDK, prometheus_client and the check of our
certificates (`rpc/tls`), which cost that where there is a Docker, --metrics or --tls-cert.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

SPARED = ("ssl", "bz2", "lzma")


def import_asyncio() -> None:
    """Import asyncio and shutil without them, where neither was imported before."""
    with _withheld(SPARED):
        import asyncio
        import shutil

        del asyncio, shutil


@contextmanager
def _withheld(names: tuple[str, ...]) -> Iterator[None]:
    """Whoever imports one of these meanwhile gets a ModuleNotFoundError.

    So says `None` in the cache of modules (https://docs.python.org/3/reference/import.html,
    "The module cache"). What was imported already stays.
    """
    withheld = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(withheld))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in withheld:
            del sys.modules[name]
