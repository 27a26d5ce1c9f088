"""Messages of any protobuf type, made from its descriptor: mostly extreme, sometimes sensible."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

_DEEPEST = 4

_JSON = st.recursive(
    st.one_of(st.none(), st.integers(), st.text(max_size=10)),
    lambda inner: st.lists(inner, max_size=3),
)
# What page tokens are made of; and one that is deep.
_TOKENS = st.one_of(_JSON.map(json.dumps), st.just("[" * 20_000)).map(
    lambda text: base64.urlsafe_b64encode(text.encode()).decode()
)
_TEXTS = st.one_of(
    _TOKENS,
    st.sampled_from(
        [
            "", "/", "/a", "/..", "/a/../b", "//a//", "a", "\0", "\x1b[2J\n", "‮", "/" + "x" * 300,
            "x" * 5000, "/x" * 3000, "=", "!", "app=web", "é" * 200, "WyJhIiwgMV0=", "%s%n", "'\"",
        ]
    ),
    st.text(max_size=40),
)  # fmt: skip


def _whole(bits: int, signed: bool) -> st.SearchStrategy[int]:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    edges = [
        value for value in (low, high, high - 1, 0, 1, 2, -1, 100, 1001) if low <= value <= high
    ]
    return st.one_of(st.sampled_from(edges), st.integers(low, high))


_SCALARS: Mapping[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.CPPTYPE_INT32: _whole(32, True),
    FieldDescriptor.CPPTYPE_INT64: _whole(64, True),
    FieldDescriptor.CPPTYPE_UINT32: _whole(32, False),
    FieldDescriptor.CPPTYPE_UINT64: _whole(64, False),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    # Also numbers that the enum does not have: a newer client's.
    FieldDescriptor.CPPTYPE_ENUM: st.one_of(st.integers(0, 6), _whole(32, True)),
    FieldDescriptor.CPPTYPE_STRING: _TEXTS,
}


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor, depth: int = 0) -> Message:
    """A message with some of its fields set."""
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if not draw(st.booleans()):
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            entries = st.dictionaries(_TEXTS, _TEXTS, max_size=draw(st.sampled_from([2, 70])))
            getattr(message, field.name).update(draw(entries))
        elif field.is_repeated:
            count = draw(st.sampled_from([0, 1, 3, 70]))
            for _ in range(count if depth < _DEEPEST else 0):
                _set(draw, message, field, depth)
        elif field.message_type is None or depth < _DEEPEST:
            _set(draw, message, field, depth)
    return message


def _set(draw: st.DrawFn, message: Message, field: FieldDescriptor, depth: int) -> None:
    if field.message_type is not None:
        value: Any = draw(messages(field.message_type, depth + 1))
        if field.is_repeated:
            getattr(message, field.name).append(value)
        else:
            getattr(message, field.name).CopyFrom(value)
        return
    value = draw(
        _TEXTS.map(str.encode) if field.type == field.TYPE_BYTES else _SCALARS[field.cpp_type]
    )
    if field.is_repeated:
        getattr(message, field.name).append(value)
    else:
        setattr(message, field.name, value)
