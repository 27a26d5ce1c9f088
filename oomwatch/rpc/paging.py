"""Pages: how large one is, and the token that names the next."""

from __future__ import annotations

import base64
import json
from typing import Any

from oomwatch.rpc.refusals import invalid

DEFAULT_PAGE = 100
LARGEST_PAGE = 1000
BYTES_A_PAGE = 1024 * 1024
"""Where a page is cut, however few it holds; a gRPC client takes 4 MiB unless told otherwise."""

LONGEST_TOKEN = 64 * 1024
"""Characters; a path of 4 KiB takes 33 KiB, where each of its characters is escaped."""


def page_size(asked: int) -> int:
    """The size of a page that a client asked for; refuses one that is out of bounds."""
    if not 0 <= asked <= LARGEST_PAGE:
        raise invalid(f"page_size {asked}: must be from 0 to {LARGEST_PAGE}")
    return asked or DEFAULT_PAGE


def page_token(parts: list[str | int]) -> str:
    """Write where the next page begins as a token that means nothing to a client."""
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


def token_parts(token: str) -> Any:
    """Read a token back; `None` where it is none of ours."""
    if len(token) > LONGEST_TOKEN:
        return None
    try:
        return json.loads(base64.urlsafe_b64decode(token))
    except (ValueError, RecursionError):  # binascii.Error is a ValueError
        return None
