"""What asyncio is imported without is there for whoever imports it later."""

from __future__ import annotations

import subprocess
import sys

SPARED = "import sys\nfrom oomwatch.cli import spared_modules\nspared_modules.import_asyncio()\n"


def run(code: str) -> None:
    """Run code in an interpreter of its own: this one has imported everything."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_none_of_them_is_imported_and_none_is_said_to_be() -> None:
    run(f"{SPARED}assert {{'ssl', 'bz2', 'lzma', 'asyncio'}} & {{*sys.modules}} == {{'asyncio'}}")


def test_whoever_imports_them_later_gets_them() -> None:
    run(f"{SPARED}import bz2, lzma, ssl\nssl.create_default_context()")


def test_asyncio_says_what_it_cannot_do() -> None:
    run(
        f"{SPARED}import asyncio, contextlib\n"
        "async def connect():\n"
        "    server = await asyncio.start_server(lambda _, to: to.close(), '127.0.0.1', 0)\n"
        "    with contextlib.closing(server):\n"
        "        port = server.sockets[0].getsockname()[1]\n"
        "        try:\n"
        "            await asyncio.open_connection('127.0.0.1', port, ssl=True)\n"
        "        except RuntimeError as error:\n"
        "            return str(error)\n"
        "assert 'ssl' in asyncio.run(connect())"
    )


def test_what_was_imported_before_stays() -> None:
    run(f"import asyncio, ssl\n{SPARED}assert sys.modules['ssl'] is ssl is asyncio.base_events.ssl")
