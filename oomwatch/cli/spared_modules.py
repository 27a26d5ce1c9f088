"""Keeps from the daemon what others would import for it, and it never asks of them.

`import asyncio` imports ssl, and that OpenSSL; `import shutil` imports bz2 and lzma. Together they
are 4.3 MiB of resident memory, a tenth of the daemon's. Its TLS is gRPC's own, it serves metrics in
plain text, and unpacks no archive. Both modules are made to do without, since a Python may be built
without those libraries; whoever wants TLS of asyncio all the same is told so by a RuntimeError.

Whatever imports ssl later still gets it: the Docker SDK, prometheus_client and the check of our
certificates (`rpc/tls`), which cost that where there is a Docker, --metrics or --tls-cert.

protobuf imports its implementation in pure Python beside that in C, and asks nothing of it: nearly
another MiB. It is run when it is first asked for anything, as where there is none in C.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec
from typing import Any

SPARED = ("ssl", "bz2", "lzma")
DEFERRED = "google.protobuf.internal.python_message"


def spare() -> None:
    """Import asyncio and shutil without them, where neither was imported before, and have
    protobuf's pure Python wait.
    """
    with _withheld(SPARED):
        import asyncio
        import shutil

        del asyncio, shutil
    _defer(DEFERRED)


def _defer(name: str) -> None:
    """Have a module be there, and run its code when it is first asked for anything.

    `importlib.util.LazyLoader` would run it when it is imported a second time: that asks for its
    `__spec__`.
    """
    spec = None if name in sys.modules else find_spec(name)
    if spec is None or spec.loader is None:
        return
    loader, module = spec.loader, module_from_spec(spec)

    def load(attribute: str) -> Any:
        del module.__dict__["__getattr__"]
        loader.exec_module(module)
        return getattr(module, attribute)

    # What a module is asked for and does not have (PEP 562).
    module.__dict__["__getattr__"] = load
    sys.modules[name] = module
    package, _, own = name.rpartition(".")
    setattr(sys.modules[package], own, module)


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
