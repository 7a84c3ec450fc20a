"""Which method is called: from a .proto file, a protoset, or the server's reflection."""

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from grpc_tools import protoc

from agentmem.bench.load.errors import LoadError

# A service whose files need more is refused.
MAX_REFLECTED_FILES = 1000


def split_call(call: str) -> tuple[str, str]:
    """The service and the method of package.Service/Method or package.Service.Method."""
    service, _, method = call.rpartition("/") if "/" in call else call.rpartition(".")
    if not service or not method:
        raise LoadError(f"call: {call!r} is not package.Service/Method or package.Service.Method")
    return service, method


def find_method(files: bytes, call: str) -> MethodDescriptor:
    """The method in a serialized FileDescriptorSet. Raises LoadError when it has none of that name."""
    service_name, method_name = split_call(call)
    pool = DescriptorPool()
    waiting = {file.name: file for file in descriptor_pb2.FileDescriptorSet.FromString(files).file}
    for name in list(waiting):
        _add(pool, waiting, name)
    try:
        service = pool.FindServiceByName(service_name)
    except KeyError as error:
        raise LoadError(f"call: no service {service_name}") from error
    if method_name not in service.methods_by_name:
        names = ", ".join(sorted(service.methods_by_name))
        raise LoadError(f"call: no method {method_name} in {service_name}; it has {names}")
    method: MethodDescriptor = service.methods_by_name[method_name]
    return method


def _add(pool: DescriptorPool, waiting: dict[str, descriptor_pb2.FileDescriptorProto], name: str) -> None:
    """Adds a file after those it imports, in whatever order they came."""
    file = waiting.pop(name, None)
    if file is None:
        return
    for dependency in file.dependency:
        _add(pool, waiting, dependency)
    pool.AddSerializedFile(file.SerializeToString())


def compile_proto(proto: str, import_paths: Sequence[str]) -> bytes:
    """The FileDescriptorSet of a .proto file. Raises LoadError when protoc refuses it (why is on stderr)."""
    if not Path(proto).is_file():
        raise LoadError(f"proto: no file {proto}")
    paths = [*import_paths, str(Path(proto).parent), "."]
    bundled = Path(protoc.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "protoset"
        includes = [f"-I{path}" for path in [*paths, bundled]]
        if protoc.main(["protoc", *includes, "--include_imports", f"--descriptor_set_out={out}", proto]) != 0:
            raise LoadError(f"proto: {proto} cannot be compiled")
        return out.read_bytes()


def read_protoset(path: str) -> bytes:
    """Raises LoadError when there is no such file or it holds something else."""
    try:
        files = Path(path).read_bytes()
        descriptor_pb2.FileDescriptorSet.FromString(files)
    except (OSError, DecodeError) as error:
        raise LoadError(f"protoset: {path}: {error}") from error
    return files


def reflect(
    channel: grpc.Channel, call: str, metadata: Iterable[tuple[str, str]], timeout_s: float | None
) -> bytes:
    """The FileDescriptorSet of the call's service, as the server's reflection tells it. Raises LoadError."""
    service, _ = split_call(call)
    stub: Any = ServerReflectionStub(channel)

    def ask(request: ServerReflectionRequest) -> list[descriptor_pb2.FileDescriptorProto]:
        try:
            answers = stub.ServerReflectionInfo(iter([request]), metadata=tuple(metadata), timeout=timeout_s)
            answer: ServerReflectionResponse = next(answers)
        except grpc.RpcError as error:
            why = f"{error.code().name}: {error.details()}"
            raise LoadError(f"the server does not reflect ({why}); give proto or protoset") from error
        if answer.HasField("error_response"):
            raise LoadError(
                f"call: {service}: {answer.error_response.error_message or 'the server has no such service'}"
            )
        found = answer.file_descriptor_response.file_descriptor_proto
        return [descriptor_pb2.FileDescriptorProto.FromString(file) for file in found]

    files = {file.name: file for file in ask(ServerReflectionRequest(file_containing_symbol=service))}
    while missing := {name for file in files.values() for name in file.dependency} - set(files):
        if len(files) + len(missing) > MAX_REFLECTED_FILES:
            raise LoadError(f"call: {service} needs more than {MAX_REFLECTED_FILES} files")
        for name in sorted(missing):
            found = ask(ServerReflectionRequest(file_by_filename=name))
            files |= {file.name: file for file in found}
            if name not in files:
                raise LoadError(f"call: {service} needs {name}, which the server does not reflect")
    return descriptor_pb2.FileDescriptorSet(file=list(files.values())).SerializeToString()
