"""What strangers rely on: reflection, health, and stubs that somebody else generated."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from cluster import Cluster, Stubs, wait_until
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from agentmem.v1 import cluster_pb2

PROTOS = Path(__file__).parent.parent / "protos"
WRITER_SERVICES = {"WriterService", "ReaderService", "ReplicationService", "ClusterService"}
REPLICA_SERVICES = {"WriterService", "ReaderService", "ClusterService"}


@pytest.mark.parametrize("name", ["grpc.reflection.v1", "grpc.reflection.v1alpha"])
def test_reflection_lists_the_services(shared_cluster: Cluster, name: str) -> None:
    for node, services in zip(shared_cluster.nodes, (WRITER_SERVICES, REPLICA_SERVICES), strict=False):
        with grpc.insecure_channel(node.address) as channel:
            ask = channel.stream_stream(
                f"/{name}.ServerReflection/ServerReflectionInfo",
                request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
            )
            (answer,) = ask(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=10)
        listed = {service.name for service in answer.list_services_response.service}
        assert {f"agentmem.v1.{service}" for service in services} <= listed


def test_a_call_made_from_reflection_alone(shared_cluster: Cluster, namespace: str) -> None:
    with grpc.insecure_channel(shared_cluster.writer.address) as channel:
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        method = pool.FindServiceByName("agentmem.v1.WriterService").methods_by_name["AddMemories"]
        request_type = message_factory.GetMessageClass(method.input_type)
        response_type = message_factory.GetMessageClass(method.output_type)
        call = channel.unary_unary(
            "/agentmem.v1.WriterService/AddMemories",
            request_serializer=request_type.SerializeToString,
            response_deserializer=response_type.FromString,
        )
        request: Any = request_type(namespace=namespace)
        request.memories.add(content="described by the server itself")
        answer: Any = call(request, timeout=10)
        assert answer.memories[0].version == 1


def test_stubs_that_somebody_else_generated(shared_cluster: Cluster, tmp_path: Path) -> None:
    protos = [str(path) for path in sorted(PROTOS.glob("agentmem/v1/*.proto"))]
    protoc = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(PROTOS)]
    subprocess.run(
        [*protoc, f"--python_out={tmp_path}", f"--grpc_python_out={tmp_path}", *protos], check=True
    )
    program = """
import sys
import grpc
import agentmem.v1.writer_pb2 as writer, agentmem.v1.writer_pb2_grpc as services
import agentmem.v1.memory_pb2 as memory
assert memory.__file__.startswith(sys.argv[2]), memory.__file__
with grpc.insecure_channel(sys.argv[1]) as channel:
    request = writer.AddMemoriesRequest(namespace="foreign", memories=[memory.Memory(content="hello")])
    print(services.WriterServiceStub(channel).AddMemories(request, timeout=10).memories[0].version)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, shared_cluster.writer.address, str(tmp_path)],
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "1\n", done.stderr


@pytest.mark.parametrize("service", ["", *sorted(REPLICA_SERVICES)])
def test_health_says_serving(shared_cluster: Cluster, service: str) -> None:
    name = f"agentmem.v1.{service}" if service else ""
    for node in shared_cluster.nodes:
        with grpc.insecure_channel(node.address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_health_can_be_watched(shared_cluster: Cluster) -> None:
    with grpc.insecure_channel(shared_cluster.writer.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=10)
        assert next(iter(watch)).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()


def test_a_replica_without_its_writer_is_not_ready(tmp_path: Path) -> None:
    with Cluster(tmp_path, replicas=0) as cluster:
        cluster.writer.terminate()
        replica = cluster.begin_replica("--drain-s", "1")
        wait_until(lambda: any("cannot be followed" in line for line in replica.log), "the replica tries")
        assert not (replica.data_dir / "process.json").exists()
        cluster.writer.restart()
        replica.wait_ready()
        assert replica.announcement["address"] == replica.address


def test_termination_is_quick_with_open_streams(tmp_path: Path) -> None:
    with Cluster(tmp_path, replicas=1) as cluster:
        stubs = [Stubs(node.address) for node in cluster.nodes for _ in range(20)]
        watches = [each.cluster.WatchTopology(cluster_pb2.WatchTopologyRequest()) for each in stubs]
        for watch in watches:
            next(iter(watch))
        ended = []

        def drain(watch: object) -> None:
            try:
                for _ in watch:  # type: ignore[attr-defined]
                    pass
                ended.append("ended")
            except grpc.RpcError as error:
                ended.append(error.code().name)

        threads = [threading.Thread(target=drain, args=(watch,)) for watch in watches]
        for thread in threads:
            thread.start()
        began = time.monotonic()
        assert [node.terminate() for node in reversed(cluster.nodes)] == [0, 0]
        assert time.monotonic() - began < 20
        for thread in threads:
            thread.join(10)
        assert ended == ["ended"] * 40  # by the servers, not cut off
        assert not (cluster.writer.data_dir / "process.json").exists()
        for each in stubs:
            each.channel.close()
