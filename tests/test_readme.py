"""The examples of the README, run as printed against a cluster."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
from cluster import Cluster

from agentmem.core.config import load_settings
from agentmem.replica.settings import ReplicaSettings
from agentmem.server.settings import WriterSettings

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
TIMEOUT_S = 60


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def printing_examples() -> list[tuple[str, str]]:
    """The Python examples, and what the README says that each prints."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [(text, printed) for (language, text), (_, printed) in pairwise(fenced) if language == "python"]


@pytest.mark.parametrize(("example", "printed"), printing_examples(), ids=["start", "searches"])
def test_the_python_examples_print_what_they_say(shared_cluster: Cluster, example: str, printed: str) -> None:
    assert '"127.0.0.1:50051"' in example  # the only word of it that a test cannot take as printed
    program = example.replace("127.0.0.1:50051", shared_cluster.writer.address)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )
    assert done.stderr == ""
    assert done.stdout == printed


def test_the_commands_run(shared_cluster: Cluster) -> None:
    (commands,) = [block for block in blocks("sh") if block.startswith("agentmem ")]
    environment = os.environ | {"AGENTMEM_TARGET": shared_cluster.writer.address}
    for line in commands.splitlines():
        command = line.replace("agentmem ", f"{sys.executable} -m agentmem.cli ")
        done = subprocess.run(
            command,
            shell=True,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"
        assert done.stdout


def test_the_settings_file_is_taken(tmp_path: Path) -> None:
    (example,) = blocks("toml")
    assert set(tomllib.loads(example)) == {"writer", "replica"}
    file = tmp_path / "agentmem.toml"
    file.write_text(example)
    flags = ("--config", str(file))
    assert load_settings(WriterSettings, "writer", "", flags, {}).insecure
    assert load_settings(ReplicaSettings, "replica", "", flags, {}).writer == "127.0.0.1:50051"


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z]+)", README)) - {"demo"}))
def test_make_targets_exist(target: str) -> None:
    makefile = (Path(__file__).parent.parent / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)
