"""The bytes and the metadata of each call, built before the run where they can be."""

import io
import json
import random
from collections.abc import Iterable, Sequence

from google.protobuf import json_format, proto
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.unknown_fields import UnknownFieldSet

from agentmem.bench.load.errors import LoadError
from agentmem.bench.load.templates import Call, Template

# Payloads are built ahead up to both; those after them are built as they are called.
MAX_BUILT_CALLS = 50_000
MAX_BUILT_BYTES = 64 * 1024 * 1024

Metadata = tuple[tuple[str, str | bytes], ...]


class Payloads:
    """The messages of each call: a list of one, except when the client streams.

    Of a JSON array, a call that takes one message takes the next element each time, and a stream takes all,
    as in ghz. Raises LoadError when the data is not of the method's input type.
    """

    def __init__(self, method: MethodDescriptor, data: str, binary: bytes, seed: int) -> None:
        self._method = method
        self._message = GetMessageClass(method.input_type)
        self._random = random.Random(seed)
        self._built: dict[int, list[bytes]] = {}
        self._messages: list[list[bytes]] = []
        self._templates: list[Template] = []
        if binary:
            self._messages = self._turns(_split(binary, self._message))
            return
        self._templates = [Template(text, "data") for text in _texts(data, method.client_streaming)]
        if all(template.constant for template in self._templates):
            none = self._call(0, "")
            self._messages = [self._encode(template.render(none)) for template in self._templates]

    def _turns(self, messages: list[bytes]) -> list[list[bytes]]:
        return [messages] if self._method.client_streaming else [[message] for message in messages]

    def _call(self, number: int, worker: str) -> Call:
        return Call(self._method, number, worker, self._random)

    def build(self, numbers: Iterable[int]) -> None:
        """Builds the messages of these calls ahead, as far as the bounds allow."""
        if self._messages or not all(template.early for template in self._templates):
            return
        built_bytes = 0
        for number in numbers:
            messages = self._new(number, "")
            self._built[number] = messages
            built_bytes += sum(map(len, messages))
            if len(self._built) >= MAX_BUILT_CALLS or built_bytes >= MAX_BUILT_BYTES:
                return

    def of(self, number: int, worker: str) -> list[bytes]:
        if self._messages:
            return self._messages[number % len(self._messages)]
        return self._built.pop(number, None) or self._new(number, worker)

    def _new(self, number: int, worker: str) -> list[bytes]:
        template = self._templates[number % len(self._templates)]
        return self._encode(template.render(self._call(number, worker)))

    def _encode(self, text: str) -> list[bytes]:
        try:
            value = json.loads(text)
        except ValueError as error:
            raise LoadError(f"data: not JSON: {error}: {text[:200]}") from error
        values = value if self._method.client_streaming and isinstance(value, list) else [value]
        try:
            return [json_format.ParseDict(one, self._message()).SerializeToString() for one in values]
        except json_format.ParseError as error:
            raise LoadError(f"data: not a {self._method.input_type.full_name}: {error}") from error


def _texts(data: str, whole: bool) -> list[str]:
    """The templates of calls that take turns: the elements of an array, unless a stream takes the whole."""
    try:
        value = json.loads(data)
    except ValueError:
        return [data]  # with actions outside of strings it is JSON only once they are filled in
    if not whole and isinstance(value, list):
        if not value:
            raise LoadError("data: the array is empty")
        return [json.dumps(one, ensure_ascii=False) for one in value]
    return [data]


def _split(data: bytes, kind: type[Message]) -> list[bytes]:
    """One message, or several with their lengths before them. Raises LoadError when it is neither."""
    if _is_message(data, kind):
        return [data]
    stream, found = io.BytesIO(data), []
    while stream.tell() < len(data):
        try:
            message = proto.parse_length_prefixed(kind, stream)
        except DecodeError:
            message = None
        if message is None or len(UnknownFieldSet(message)):
            raise LoadError(
                f"binary: neither a {kind.DESCRIPTOR.full_name} nor several with their lengths before them"
            )
        found.append(message.SerializeToString())
    return found


def _is_message(data: bytes, kind: type[Message]) -> bool:
    message = kind()
    try:
        message.ParseFromString(data)
    except DecodeError:
        return False
    return len(UnknownFieldSet(message)) == 0


class CallMetadata:
    """The metadata of each call; the names and the values may have template actions."""

    def __init__(self, method: MethodDescriptor, metadata: Sequence[tuple[str, str]], seed: int) -> None:
        self._method = method
        self._random = random.Random(seed)
        self._templates = [(Template(key, "metadata"), Template(text, "metadata")) for key, text in metadata]
        self._constant: Metadata | None = None
        if all(key.constant and value.constant for key, value in self._templates):
            self._constant = self._render(0, "")

    def of(self, number: int, worker: str) -> Metadata:
        return self._render(number, worker) if self._constant is None else self._constant

    def _render(self, number: int, worker: str) -> Metadata:
        call = Call(self._method, number, worker, self._random)
        pairs: list[tuple[str, str | bytes]] = []
        for key_template, value_template in self._templates:
            key, value = key_template.render(call).lower(), value_template.render(call)
            pairs.append((key, value.encode() if key.endswith("-bin") else value))
        return tuple(pairs)
