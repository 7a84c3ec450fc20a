"""Compression of stored values: zstd, with a dictionary where one pays.

A memory has about 270 bytes and hardly compresses alone: what it repeats is in the memories before it, and a
dictionary trained on some of those brings it along.

A frame has zstd's format without the magic number, with the content size and without a checksum: the codec
says what it is, and stored values have a checksum of their own. It names its dictionary in zstd's own field,
of 1, 2 or 4 bytes, so low ids make small frames.

A dictionary holds pieces of its samples word for word. To erase the text of a sample is to retire the
dictionary too, and to write again what was compressed with it.

Everything here may be used from several threads. This is the only module that imports zstandard.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import zstandard

CODEC_RAW = 0  # the payload is the body itself
CODEC_ZSTD = 1  # a zstd frame
CODEC_ZSTD_DICTIONARY = 2  # a zstd frame that names its dictionary

# How many values to train on: from fewer a dictionary learns less, from more hardly more.
TRAINING_SAMPLES = 1_000
# Twice the size saves 2 % more, and its own size only from thousands of memories on.
MAX_DICTIONARY_BYTES = 16 * 1024
MAX_DICTIONARY_ID = 2**32 - 1

# Higher levels save at most 4 % more of a memory, and take five times as long.
_LEVEL = 3
_DICTIONARY_MAGIC = b"\x37\xa4\x30\xec"
_FORMAT = zstandard.FORMAT_ZSTD1_MAGICLESS
_NO_SIZE = (0, zstandard.CONTENTSIZE_UNKNOWN, zstandard.CONTENTSIZE_ERROR)
_PARAMETERS = zstandard.ZstdCompressionParameters.from_level(
    _LEVEL, format=_FORMAT, write_content_size=True, write_checksum=False, write_dict_id=True
)
# Below these too little is saved to be worth the time.
_MIN_PLAIN_BYTES = 200
_MIN_DICTIONARY_BYTES = 32
# Of another kind of text a dictionary can make more than none would: that is tried too where more is left.
_DOUBTFUL_SHARE = 0.6
# How many wait to be used again, for each dictionary and direction; each has about 100 KiB.
_MAX_IDLE_CONTEXTS = 4

_MIN_GAIN = 0.2
_HELD_OUT_SHARE = 0.2
# Bounds the time of a training, to about half a second.
_MAX_TRAINING_BYTES = 4 * 1024 * 1024


class CompressionError(ValueError):
    """A payload that cannot be decompressed as asked, or data that are not a dictionary."""


class _Contexts:
    """zstd's working memory: a context serves one call at a time, and a new one costs as much as ten."""

    def __init__(self, dictionary: zstandard.ZstdCompressionDict | None = None) -> None:
        """Raises zstandard.ZstdError when the dictionary is damaged."""
        self._dictionary = dictionary
        # The first contexts are made here: they prepare the dictionary for all. A deque may be used from
        # several threads, and drops its oldest when it is full.
        if dictionary is not None:
            dictionary.precompute_compress(level=_LEVEL)
        self._compressors = deque([self._compressor()], maxlen=_MAX_IDLE_CONTEXTS)
        self._decompressors = deque([self._decompressor()], maxlen=_MAX_IDLE_CONTEXTS)

    def _compressor(self) -> zstandard.ZstdCompressor:
        return zstandard.ZstdCompressor(dict_data=self._dictionary, compression_params=_PARAMETERS)

    def _decompressor(self) -> zstandard.ZstdDecompressor:
        return zstandard.ZstdDecompressor(dict_data=self._dictionary, format=_FORMAT)

    def compress(self, body: bytes) -> bytes:
        try:
            compressor = self._compressors.pop()
        except IndexError:
            compressor = self._compressor()
        frame = compressor.compress(body)
        self._compressors.append(compressor)
        return frame

    def decompress(self, frame: bytes) -> bytes:
        """Raises zstandard.ZstdError; a context that failed is not used again."""
        try:
            decompressor = self._decompressors.pop()
        except IndexError:
            decompressor = self._decompressor()
        body = decompressor.decompress(frame, 0, False, False)  # no data behind the frame
        self._decompressors.append(decompressor)
        return body


class Dictionary:
    """A trained dictionary, ready for use. Takes about 0.5 MiB of memory: keep few, not one for each name."""

    def __init__(self, id: int, data: bytes) -> None:
        """``id``, 1 to 2**32 - 1, goes into each payload; ``data`` is what ``train`` returned.

        Raises:
            CompressionError: the data are not a dictionary, or damaged, or the id is out of range.
        """
        if not 1 <= id <= MAX_DICTIONARY_ID:
            raise CompressionError(f"the id of a dictionary must be 1 to {MAX_DICTIONARY_ID}, not {id}")
        if not data.startswith(_DICTIONARY_MAGIC):
            raise CompressionError(f"the data of dictionary {id} are not a dictionary")
        self.id = id
        self.data = data
        # The id that frames name stands behind the magic number.
        named = _DICTIONARY_MAGIC + id.to_bytes(4, "little") + data[8:]
        try:
            self._contexts = _Contexts(zstandard.ZstdCompressionDict(named))
        except zstandard.ZstdError as error:
            raise CompressionError(f"the data of dictionary {id} are damaged: {error}") from error


_WITHOUT_DICTIONARY = _Contexts()
FindDictionary = Callable[[int], Dictionary | None]


def compress(body: bytes, dictionary: Dictionary | None = None) -> tuple[int, bytes]:
    """The codec and the payload, which is the smallest that they make and never larger than the body."""
    best = (CODEC_RAW, body)
    if dictionary is not None and len(body) >= _MIN_DICTIONARY_BYTES:
        frame = dictionary._contexts.compress(body)
        if len(frame) < len(body):
            best = (CODEC_ZSTD_DICTIONARY, frame)
    if len(best[1]) > _DOUBTFUL_SHARE * len(body) and len(body) >= _MIN_PLAIN_BYTES:
        frame = _WITHOUT_DICTIONARY.compress(body)
        if len(frame) < len(best[1]):
            best = (CODEC_ZSTD, frame)
    return best


def dictionary_id(payload: bytes) -> int:
    """The id that a payload of CODEC_ZSTD_DICTIONARY names. Raises CompressionError when it is damaged."""
    return _frame(payload).dict_id


def decompress(codec: int, payload: bytes, dictionary: Dictionary | None, max_bytes: int) -> bytes:
    """As ``decompress_with``, with the one dictionary that there is."""
    return decompress_with(codec, payload, lambda _: dictionary, max_bytes)


def decompress_with(codec: int, payload: bytes, find: FindDictionary, max_bytes: int) -> bytes:
    """The body that ``compress`` was given. Only for CODEC_ZSTD_DICTIONARY a dictionary is looked for.

    Its size is known before memory is taken for it. Not all damage shows: that needs a checksum.

    Raises:
        CompressionError: the payload is damaged, is or claims to be larger than ``max_bytes``, or needs
            another dictionary; or the codec is none of this release.
    """
    if codec not in (CODEC_RAW, CODEC_ZSTD, CODEC_ZSTD_DICTIONARY):
        raise CompressionError(f"codec {codec} is not known")
    frame = None if codec == CODEC_RAW else _frame(payload)
    size_bytes = len(payload) if frame is None else frame.content_size
    if size_bytes > max_bytes:
        raise CompressionError(f"the body has {size_bytes} bytes; at most {max_bytes} are expected")
    if frame is None:
        return payload
    contexts = _WITHOUT_DICTIONARY
    if codec == CODEC_ZSTD_DICTIONARY:
        dictionary = find(frame.dict_id)
        if dictionary is None or dictionary.id != frame.dict_id:
            raise CompressionError(
                f"the payload needs dictionary {frame.dict_id}, and another or none was given"
            )
        contexts = dictionary._contexts
    try:
        return contexts.decompress(payload)
    except zstandard.ZstdError as error:
        raise CompressionError(f"the payload is damaged: {error}") from error


def _frame(payload: bytes) -> zstandard.FrameParameters:
    try:
        frame = zstandard.get_frame_parameters(payload, _FORMAT)
    except zstandard.ZstdError as error:
        raise CompressionError(f"the payload is damaged: {error}") from error
    # What is empty is stored raw; behind such a claim zstandard would not look.
    if frame.content_size in _NO_SIZE:
        raise CompressionError("the payload is damaged: it has no content size")
    return frame


def train(samples: Sequence[bytes], *, max_dictionary_bytes: int = MAX_DICTIONARY_BYTES) -> bytes | None:
    """A dictionary for values like the samples, which are in the order of their writing; None if none pays.

    Trained on the first four fifths and judged on the last, it pays when it makes those 20 % smaller than
    they are without it, and saves more than its own size on all. Takes about 30 ms for 1,000 memories.
    """
    held_out = samples[len(samples) - int(len(samples) * _HELD_OUT_SHARE) :]
    if not held_out:
        return None
    max_bytes = _MAX_TRAINING_BYTES // len(samples)
    trained_on = [sample[:max_bytes] for sample in samples[: -len(held_out)]]
    try:
        data = zstandard.train_dictionary(max_dictionary_bytes, [*trained_on], level=_LEVEL).as_bytes()
    except zstandard.ZstdError:
        return None  # too few samples, or nothing that they share
    dictionary = Dictionary(1, data)
    without_bytes = sum(len(compress(body)[1]) for body in held_out)
    saved_bytes = without_bytes - sum(len(compress(body, dictionary)[1]) for body in held_out)
    saved_on_all_bytes = saved_bytes * len(samples) // len(held_out)
    return data if saved_bytes >= _MIN_GAIN * without_bytes and saved_on_all_bytes > len(data) else None
