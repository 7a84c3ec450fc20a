"""`agentmem up`, `scale` and `down`: real processes on free ports, killed in every way that users find."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cluster import wait_until

from agentmem.cli import bundled, conversations, processes
from agentmem.cli.cluster import LocalCluster
from agentmem.cli.processes import NodeFolder
from agentmem.client import Client, InvalidArgument

COMMAND_TIMEOUT_S = 60.0
SEARCHED = "sample/ana-ben"


def agentmem(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "agentmem.cli", *arguments]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        agentmem(*arguments), capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


class Up:
    """A running `agentmem up` on free ports."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.cluster = LocalCluster(folder / "data")
        self.output_path = folder / "up.out"
        with self.output_path.open("wb") as output:
            command = agentmem("up", "--port", "0", "--data-dir", str(self.cluster.data_dir), *options)
            self.process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )
        self.wait_for("ready; Ctrl-C stops everything")

    @property
    def output(self) -> str:
        return self.output_path.read_text()

    def wait_for(self, text: str) -> None:
        """Returns when the supervisor has printed the text."""

        def printed() -> bool:
            assert self.process.poll() is None or text in self.output, self.output
            return text in self.output

        wait_until(printed, f"{text!r} in the output of up")

    def end(self, number: signal.Signals) -> int:
        """Signals the supervisor and returns its exit code."""
        self.process.send_signal(number)
        return self.process.wait(COMMAND_TIMEOUT_S)

    def pid(self, name: str) -> int:
        announced = NodeFolder(self.cluster.data_dir / name).live()
        assert announced is not None
        return announced.pid


@contextmanager
def up(folder: Path, *options: str) -> Iterator[Up]:
    running = Up(folder, *options)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait(COMMAND_TIMEOUT_S)
        running.cluster.stop()


@contextmanager
def searching(target: str) -> Iterator[list[BaseException]]:
    """Searches in a loop meanwhile; yields what went wrong."""
    problems: list[BaseException] = []
    done = threading.Event()

    def search() -> None:
        with Client(target) as client:
            while not done.is_set():
                try:
                    assert client.search(SEARCHED, "moving to Bristol", mode="text").hits
                except Exception as error:
                    problems.append(error)

    thread = threading.Thread(target=search)
    thread.start()
    try:
        yield problems
    finally:
        done.set()
        thread.join(COMMAND_TIMEOUT_S)


def test_up_with_the_sample_then_scale_then_ctrl_c(tmp_path: Path) -> None:
    with up(tmp_path, "--replicas", "1", "--sample") as running:
        cluster, data_dir = running.cluster, str(running.cluster.data_dir)
        target = cluster.writer_address()
        assert f"$ agentmem search -n {SEARCHED}" in running.output
        with Client(target) as client:
            for conversation in conversations.load_folder(bundled.FOLDER):
                present = {memory.id for memory in client.iterate(bundled.namespace(conversation))}
                assert present == {turn.id for turn in conversation.turns}
        with searching(target) as problems:
            grown = run("scale", "3", "--data-dir", data_dir)
            assert (grown.returncode, grown.stderr) == (0, "")
            assert "started replica-2, replica-3" in grown.stdout
            status = run("status", "--target", target).stdout
            assert status.count("serving") == 4
            shrunk = run("scale", "1", "--data-dir", data_dir)
            assert (shrunk.returncode, shrunk.stderr) == (0, "")
            assert "stopped replica-3, replica-2" in shrunk.stdout
        assert problems == []
        assert [folder.name for folder in cluster.owned()] == ["writer", "replica-1"]
        for line in ("replica-3 serves at", "replica-2 stopped", "replica-3 stopped"):
            running.wait_for(line)
        assert "died" not in running.output
        assert running.end(signal.SIGINT) == 0
        assert running.output.endswith("stopping\nstopped\n")
        assert cluster.owned() == []
        assert not (cluster.writer.path / "process.json").exists()


def test_what_crashes_is_named_and_scale_brings_it_back(tmp_path: Path) -> None:
    embedders = ("--embedder", "none", "--embedder", "wordllama")
    with up(tmp_path, "--replicas", "1", *embedders) as running:
        data_dir = str(running.cluster.data_dir)
        target = running.cluster.writer_address()
        with Client(target) as client:
            client.add("n", "kept", id="m1")
        for name in ("replica-1", "writer"):
            os.kill(running.pid(name), signal.SIGKILL)
            running.wait_for(f"{name} died: it was killed by SIGKILL")
            running.wait_for(f"bring it back with: agentmem scale 1 --data-dir {data_dir}")
            if name == "writer":
                status = run("status", "--target", running.cluster.endpoints()[0])
                assert "no writer serves now" in status.stderr
                assert status.stdout.splitlines()[1].split()[3:] == ["unreachable", "1", "-", "-"]
                assert status.stdout.splitlines()[2].split()[3:6] == ["serving", "1", "?"]
            back = run("scale", "1", "--data-dir", data_dir)
            assert (back.returncode, back.stderr) == (0, "")
            assert f"started {name}\n" in back.stdout
        assert running.cluster.writer_address() == target
        with Client(target) as client:
            assert client.get("n", "m1") is not None
            # It has the embedders of before.
            with pytest.raises(InvalidArgument, match="this server has none, wordllama"):
                client.reembed("n", "magic")
        assert running.end(signal.SIGTERM) == 0
        assert running.cluster.owned() == []


def test_a_node_that_hangs_is_killed_and_that_is_no_crash(tmp_path: Path) -> None:
    with up(tmp_path, "--replicas", "1") as running:
        os.kill(running.pid("replica-1"), signal.SIGSTOP)
        killed = processes.stop_folders([NodeFolder(running.cluster.data_dir / "replica-1")], timeout_s=1)
        assert killed == ["replica-1 did not stop within 1 s and was killed"]
        running.wait_for("replica-1 stopped")
        assert "died" not in running.output
        assert [folder.name for folder in running.cluster.owned()] == ["writer"]


def test_a_killed_supervisor_leaves_a_cluster_that_down_stops(tmp_path: Path) -> None:
    with up(tmp_path, "--replicas", "1") as running:
        data_dir = str(running.cluster.data_dir)
        assert running.end(signal.SIGKILL) == -signal.SIGKILL
        assert len(running.cluster.owned()) == 2
        again = run("up", "--port", "0", "--data-dir", data_dir)
        assert again.returncode == 1
        assert "already runs" in again.stderr
        assert f"agentmem down --data-dir {data_dir}" in again.stderr
        stopped = run("down", "--data-dir", data_dir)
        assert (stopped.returncode, stopped.stdout) == (0, "stopped writer, replica-1\n")
        assert running.cluster.owned() == []
        assert "nothing runs" in run("down", "--data-dir", data_dir).stdout
        nothing = run("scale", "1", "--data-dir", data_dir)
        assert nothing.returncode == 1
        assert "no cluster runs" in nothing.stderr


def test_down_ends_the_supervisor_too(tmp_path: Path) -> None:
    with up(tmp_path, "--replicas", "0") as running:
        assert run("down", "--data-dir", str(running.cluster.data_dir)).returncode == 0
        assert running.process.wait(COMMAND_TIMEOUT_S) == 0
        assert "nothing runs in" in running.output
        assert "died" not in running.output


def test_the_sample_is_imported_only_once(tmp_path: Path) -> None:
    with up(tmp_path, "--replicas", "0", "--sample") as running:
        with Client(running.cluster.writer_address()) as client:
            client.delete(SEARCHED, "D1:1")
        assert running.end(signal.SIGINT) == 0
    with up(tmp_path, "--replicas", "0", "--sample") as running:
        assert "memories into" not in running.output
        with Client(running.cluster.writer_address()) as client:
            assert client.get(SEARCHED, "D1:1") is None


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("up", "--port", str(port), "--data-dir", str(tmp_path / "data"))
        assert done.returncode == 1
        assert f"port {port} on 127.0.0.1 is in use: choose another with --port" in done.stderr
    beyond = run("up", "--port", "65535", "--data-dir", str(tmp_path / "data"))
    assert beyond.returncode in (1, 2)
    assert "choose" in beyond.stderr


@pytest.mark.parametrize("name", ["writer", "replica-1"])
def test_a_node_that_cannot_start_shows_its_log_and_stops_the_rest(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "data" / name
    folder.mkdir(parents=True)
    # Where the process needs a folder.
    (folder / "store").write_text("")
    done = run("up", "--port", "0", "--replicas", "1", "--data-dir", str(tmp_path / "data"))
    assert done.returncode == 1
    assert f"{name} did not start: it exited with code" in done.stderr
    assert f"logs/{name}.log:\n  " in done.stderr
    assert LocalCluster(tmp_path / "data").owned() == []


def test_a_pid_that_belongs_to_somebody_else_is_left_alone(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path)
    folder = cluster.writer.path
    folder.mkdir()
    (folder / "LOCK").touch()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        process = {
            "pid": stranger.pid,
            "role": "writer",
            "node_id": "writer",
            "address": "127.0.0.1:1",
            "start_time": 0.0,
        }
        (folder / "process.json").write_text(json.dumps(process))
        assert cluster.writer.live() is None
        crashed = cluster.writer.crashed()
        assert crashed is not None
        assert crashed.pid == stranger.pid
        assert "nothing runs" in run("down", "--data-dir", str(tmp_path)).stdout
        assert stranger.poll() is None
        stranger.communicate(b"\n")
        assert stranger.returncode == 0


def test_a_held_lock_is_life(tmp_path: Path) -> None:
    folder = NodeFolder(tmp_path)
    assert not folder.is_owned()
    with (tmp_path / "LOCK").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert folder.is_owned()
        assert folder.live() is None
    assert not folder.is_owned()


def test_a_cluster_goes_on_after_a_promotion(tmp_path: Path) -> None:
    with up(tmp_path, "--replicas", "2") as running:
        data_dir = str(running.cluster.data_dir)
        endpoints = running.cluster.endpoints()
        target = ",".join(endpoints)
        with Client(*endpoints) as client:
            client.add("n", "kept", id="m1")
        promoted = run("promote", "replica-1", "--target", target)
        assert promoted.returncode == 0, promoted.stderr
        assert "is the writer of epoch 2" in promoted.stdout
        assert "nothing was left behind" in promoted.stdout
        running.wait_for("as the writer")
        running.wait_for("as the replica")
        assert running.cluster.writer.name == "replica-1"
        with Client(*endpoints) as client:
            client.add("n", "of the new writer", id="m2")
        # The writer is not among those that are stopped.
        shrunk = run("scale", "1", "--data-dir", data_dir)
        assert (shrunk.returncode, "stopped replica-2" in shrunk.stdout) == (0, True)
        assert [folder.name for folder in running.cluster.owned()] == ["replica-1", "writer"]
        refused = run("promote", "replica-1", "--target", target, "--json")
        assert (refused.returncode, "is the writer" in refused.stderr) == (1, True)
        unknown = run("promote", "nobody", "--target", target)
        assert (unknown.returncode, "the cluster has replica-1" in unknown.stderr) == (2, True)
        assert "died" not in running.output
        assert running.end(signal.SIGINT) == 0
    with up(tmp_path, "--replicas", "2") as running:
        assert running.cluster.writer.name == "replica-1"
        with Client(*running.cluster.endpoints()) as client:
            topology = client.topology()
            assert topology.epoch == 2
            assert topology.writer is not None
            assert topology.writer.id == "replica-1"
            assert {node.id for node in topology.replicas} == {"writer", "replica-2"}
            assert client.get("n", "m2") is not None
        assert running.end(signal.SIGINT) == 0
