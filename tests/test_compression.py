"""Compression of stored values: what comes back, what is refused, and when a dictionary pays."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from memories import make_memory

from agentmem.core.compression import (
    CODEC_RAW,
    CODEC_ZSTD,
    CODEC_ZSTD_DICTIONARY,
    MAX_DICTIONARY_BYTES,
    MAX_DICTIONARY_ID,
    CompressionError,
    Dictionary,
    compress,
    decompress,
    dictionary_id,
    train,
)

MAX_BYTES = 256 * 1024
WORDS = (
    "lunch",
    "garden",
    "Porto",
    "train",
    "sister",
    "letter",
    "guitar",
    "rain",
    "market",
    "violin",
    "bread",
)
OPENINGS = ("I remember that", "Yesterday we talked about", "Next week there is", "Did you hear about")


def bodies(count: int, seed: int = 1) -> list[bytes]:
    """Serialized memories of few words in a few phrases: much that repeats, but not within one of them."""
    random_ = random.Random(seed)
    return [
        make_memory(
            f"{random_.getrandbits(64):016x}",
            f"{random_.choice(OPENINGS)} the {' and the '.join(random_.sample(WORDS, 5))}.",
            namespace="agents/support",
            user_id=random_.choice(("Ana", "Ben")),
            session_id=f"session_{number // 20}",
        ).SerializeToString(deterministic=True)
        for number in range(count)
    ]


def varied_bodies(count: int, text_bytes: int = 150) -> list[bytes]:
    """Memories whose texts have nothing in common; what repeats is what stands around them."""
    random_ = random.Random(12)
    return [
        make_memory(
            f"memory-{number}",
            random_.randbytes(text_bytes // 2).hex(),
            namespace="agents/support",
            session_id="session_1",
        ).SerializeToString(deterministic=True)
        for number in range(count)
    ]


def random_bodies(count: int) -> list[bytes]:
    random_ = random.Random(2)
    return [random_.randbytes(250) for _ in range(count)]


@cache
def trained() -> bytes:
    data = train(bodies(400))
    assert data is not None
    return data


@cache
def dictionary(id: int = 7) -> Dictionary:
    return Dictionary(id, trained())


BODIES = st.one_of(
    st.binary(max_size=2000),
    st.text(max_size=500).map(str.encode),
    st.sampled_from(bodies(50, seed=3)),
    st.builds(lambda part, times: part * times, st.binary(min_size=1, max_size=9), st.integers(1, 9000)),
)


@settings(max_examples=300, deadline=None)
@given(body=BODIES, with_dictionary=st.booleans())
def test_what_was_compressed_comes_back(body: bytes, with_dictionary: bool) -> None:
    used = dictionary() if with_dictionary else None
    codec, payload = compress(body, used)
    assert len(payload) <= len(body)
    assert codec != CODEC_ZSTD_DICTIONARY or with_dictionary
    assert decompress(codec, payload, used, max_bytes=len(body)) == body
    if codec != CODEC_ZSTD_DICTIONARY:
        # A namespace has payloads from before it had a dictionary, and reads them with it too.
        assert decompress(codec, payload, dictionary(9), max_bytes=len(body)) == body


def test_each_codec_where_it_is_the_smallest() -> None:
    memory = bodies(1, seed=4)[0]
    assert compress(b"") == (CODEC_RAW, b"")
    assert compress(b"short") == (CODEC_RAW, b"short")
    incompressible = random_bodies(1)[0]
    assert compress(incompressible, dictionary()) == (CODEC_RAW, incompressible)
    assert compress(memory * 3)[0] == CODEC_ZSTD
    codec, payload = compress(memory, dictionary())
    assert codec == CODEC_ZSTD_DICTIONARY
    assert len(payload) < 0.6 * len(compress(memory)[1])


def test_a_dictionary_of_other_texts_does_no_harm() -> None:
    random_ = random.Random(5)
    chinese = "".join(chr(random_.randrange(0x4E00, 0x4F00)) for _ in range(300)).encode()
    without = compress(chinese)
    assert without[0] == CODEC_ZSTD
    assert len(compress(chinese, dictionary())[1]) <= len(without[1])


def test_more_than_expected_is_refused() -> None:
    zeros = b"\x00" * 1_000_000
    for used in (None, dictionary()):
        codec, payload = compress(zeros, used)
        assert len(payload) < 100
        assert decompress(codec, payload, used, max_bytes=len(zeros)) == zeros
        with pytest.raises(CompressionError, match="1000000 bytes; at most 999999"):
            decompress(codec, payload, used, max_bytes=len(zeros) - 1)
    with pytest.raises(CompressionError, match="5 bytes; at most 4"):
        decompress(CODEC_RAW, b"12345", None, max_bytes=4)


def test_a_frame_that_claims_less_than_it_holds_is_refused() -> None:
    _, payload = compress(b"\x00" * 200)
    # Of a frame this small the size is one byte, behind the descriptor.
    assert payload[1] == 200
    for claimed in (0, 1, 199, 201):
        with pytest.raises(CompressionError, match="damaged"):
            decompress(CODEC_ZSTD, bytes([payload[0], claimed]) + payload[2:], None, MAX_BYTES)


def test_another_dictionary_is_refused() -> None:
    body = bodies(1, seed=6)[0]
    codec, payload = compress(body, dictionary())
    assert dictionary_id(payload) == 7
    for other in (None, Dictionary(8, trained())):
        with pytest.raises(CompressionError, match="needs dictionary 7"):
            decompress(codec, payload, other, MAX_BYTES)
    with pytest.raises(CompressionError):
        decompress(CODEC_ZSTD, payload, dictionary(), MAX_BYTES)
    _, plain = compress(body * 3)
    with pytest.raises(CompressionError, match="needs dictionary 0"):
        decompress(CODEC_ZSTD_DICTIONARY, plain, dictionary(), MAX_BYTES)


@pytest.mark.parametrize("id", [1, 255, 256, 65_536, MAX_DICTIONARY_ID])
def test_payloads_name_their_dictionary(id: int) -> None:
    used = Dictionary(id, trained())
    body = bodies(1, seed=7)[0]
    codec, payload = compress(body, used)
    assert dictionary_id(payload) == id
    assert decompress(codec, payload, used, MAX_BYTES) == body


def test_an_unknown_codec_is_refused() -> None:
    for codec in (3, 255, -1):
        with pytest.raises(CompressionError, match="not known"):
            decompress(codec, b"payload", None, MAX_BYTES)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damage_is_an_error_or_bounded(data: st.DataObject) -> None:
    used = data.draw(st.sampled_from([None, dictionary()]))
    codec, payload = compress(bodies(1, seed=8)[0] * 2, used)
    damaged = bytearray(payload)
    position = data.draw(st.integers(0, len(payload) - 1))
    damaged[position] ^= data.draw(st.integers(1, 255))
    kept = bytes(damaged[: data.draw(st.integers(0, len(payload)))])
    with suppress(CompressionError):
        assert len(decompress(codec, kept, used, max_bytes=1000)) <= 1000
    # The context that met the damage does no harm to the next call.
    assert decompress(codec, payload, used, max_bytes=1000) == bodies(1, seed=8)[0] * 2


@given(payload=st.binary(max_size=300), codec=st.sampled_from([CODEC_ZSTD, CODEC_ZSTD_DICTIONARY]))
def test_any_bytes_are_an_error_or_bounded(payload: bytes, codec: int) -> None:
    with suppress(CompressionError):
        assert len(decompress(codec, payload, dictionary(), max_bytes=1000)) <= 1000


@pytest.mark.parametrize("cut", [lambda payload: payload[:-1], lambda payload: payload + b"\x00"])
def test_a_payload_that_is_cut_or_goes_on_is_refused(cut: object) -> None:
    assert callable(cut)
    for used in (None, dictionary()):
        codec, payload = compress(bodies(1, seed=9)[0] * 2, used)
        assert codec != CODEC_RAW
        with pytest.raises(CompressionError, match="damaged"):
            decompress(codec, cut(payload), used, MAX_BYTES)


@pytest.mark.parametrize("data", [b"", b"not a dictionary", b"\x37\xa4\x30\xec", None])
def test_what_is_no_dictionary_is_refused(data: bytes | None) -> None:
    with pytest.raises(CompressionError, match="dictionary 3 are"):
        Dictionary(3, trained()[:50] if data is None else data)


@pytest.mark.parametrize("id", [-1, 0, MAX_DICTIONARY_ID + 1])
def test_an_id_out_of_range_is_refused(id: int) -> None:
    with pytest.raises(CompressionError, match="must be 1 to"):
        Dictionary(id, trained())


def test_threads_share_a_dictionary() -> None:
    shared = Dictionary(5, trained())
    # Of many sizes: zstd works without the GIL, the longer the body the longer.
    texts = [body * (1 + number % 60) for number, body in enumerate(bodies(240, seed=10))]
    expected = [compress(text, shared) for text in texts]

    def work(seed: int) -> int:
        wrong = 0
        for number in random.Random(seed).choices(range(len(texts)), k=1500):
            used = shared if number % 3 else None
            codec, payload = compress(texts[number], used)
            wrong += used is shared and (codec, payload) != expected[number]
            wrong += decompress(codec, payload, used, MAX_BYTES) != texts[number]
        return wrong

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(work, range(8))) == 0


def test_a_dictionary_pays_for_memories_that_repeat() -> None:
    data = train(bodies(400))
    assert data is not None
    assert len(data) <= MAX_DICTIONARY_BYTES
    later = bodies(200, seed=11)
    without_bytes = sum(len(compress(body)[1]) for body in later)
    with_bytes = sum(len(compress(body, Dictionary(1, data))[1]) for body in later)
    assert with_bytes < 0.8 * without_bytes


def test_a_dictionary_has_the_size_that_it_may_have() -> None:
    data = train(bodies(400), max_dictionary_bytes=4096)
    assert data is not None
    assert len(data) <= 4096


def test_no_dictionary_where_none_pays() -> None:
    assert train([]) is None
    assert train([b""] * 100) is None
    assert train(bodies(4)) is None, "too few to learn from"
    assert train(varied_bodies(150)) is None, "what so few save is less than the dictionary"
    assert train(varied_bodies(500)) is not None
    assert train(varied_bodies(1000, text_bytes=1200)) is None, "what repeats is a small part"
    assert train(random_bodies(500)) is None, "nothing repeats"
    assert train(bodies(400) + random_bodies(100)) is None, "what comes later is not like what came before"


def test_training_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    seen_bytes = []

    def spy(size: int, samples: list[bytes], level: int) -> object:
        seen_bytes.append(sum(map(len, samples)))
        return zstandard_train(size, [*samples], level=level)

    zstandard_train = zstandard.train_dictionary
    monkeypatch.setattr(zstandard, "train_dictionary", spy)
    train([body * 500 for body in bodies(400)])
    assert 1 << 20 < seen_bytes[0] <= 4 << 20
