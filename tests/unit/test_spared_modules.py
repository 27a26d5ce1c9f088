"""What the daemon is spared is there for whoever imports it later, or asks it for anything."""

from __future__ import annotations

import subprocess
import sys

SPARED = "import sys\nfrom oomwatch.cli import spared_modules\nspared_modules.spare()\n"


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


MESSAGE = "from google.protobuf.duration_pb2 import Duration\nmessage = Duration(seconds=7)\n"
PURE = "pure = sys.modules['google.protobuf.internal.python_message']\n"


def test_protobuf_in_c_goes_without_that_in_pure_python() -> None:
    run(
        f"{SPARED}{MESSAGE}{PURE}assert '__getattr__' in vars(pure)\n"
        "assert message == Duration.FromString(message.SerializeToString())\n"
        "assert 'google.protobuf.internal.decoder' not in sys.modules\n"
        "assert str(message) == 'seconds: 7\\n'"
    )


def test_protobuf_in_pure_python_is_there_where_it_is_asked_for() -> None:
    run(
        "import os\nos.environ['PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION'] = 'python'\n"
        f"{SPARED}{MESSAGE}{PURE}assert type(Duration) is pure.GeneratedProtocolMessageType\n"
        "assert message == Duration.FromString(message.SerializeToString())"
    )


def test_what_it_does_not_have_it_says_it_does_not_have() -> None:
    run(f"{SPARED}{MESSAGE}{PURE}assert not hasattr(pure, 'no_such_thing')\nassert pure.containers")
