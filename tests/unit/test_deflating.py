"""Short records come back whole whatever was deflated since, and alike ones take little room."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from oomwatch.containers.deflating import Deflater


def record(number: int) -> tuple[bytes, bytes]:
    """A record as a container's is, and the id in it that its holder has anyway."""
    identity = b"%064x" % (number * 2654435761 % 2**64)
    words = b"registry.example/team/web:1.%d io.kubernetes.container.name=web-%d /pods/%b.scope"
    return words % (number % 7, number, identity), identity


@given(some.lists(some.tuples(some.binary(max_size=3000), some.binary(max_size=80)), max_size=40))
def test_each_record_is_inflated_to_what_it_was(records: list[tuple[bytes, bytes]]) -> None:
    deflater = Deflater()
    deflated = [deflater.deflate(plain, known) for plain, known in records]
    for (plain, known), one in zip(records, deflated, strict=True):
        assert deflater.inflate(one, known) == plain


def test_alike_records_take_a_quarter_of_their_room() -> None:
    deflater = Deflater()
    records = [record(number) for number in range(1000)]
    deflated = [deflater.deflate(plain, known) for plain, known in records]
    assert sum(map(len, deflated)) < sum(len(plain) for plain, _ in records) / 4


def test_what_is_known_takes_no_room() -> None:
    deflater = Deflater()
    sizes = []
    for known_of in (lambda identity: identity, lambda _: b""):
        records = [record(number) for number in range(500)]
        sizes.append(sum(len(deflater.deflate(p, known_of(known))) for p, known in records))
    assert sizes[0] < sizes[1] * 0.75


def test_dictionaries_follow_what_is_deflated_and_stay_few() -> None:
    deflater = Deflater()
    first = [deflater.deflate(*record(number)) for number in range(1000)]
    others = [
        (b"podman quay.example/batch/job:%d label=nightly-%d" % (n, n), b"") for n in range(4000)
    ]
    later = [deflater.deflate(*other) for other in others]
    assert len({one[0] for one in (*first, *later)}) <= 14, "one more each time they double"
    alone = sum(len(Deflater().deflate(*other)) for other in others[-500:])
    assert sum(map(len, later[-500:])) < alone / 2
    assert [deflater.inflate(one, record(n)[1]) for n, one in enumerate(first)] == [
        record(n)[0] for n in range(1000)
    ]
