"""Settings: where they come from, which source is stronger, and what is refused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from agentmem.core.config import SettingsError, load_settings
from agentmem.replica.settings import ReplicaSettings
from agentmem.server.settings import WriterSettings

REQUIRED = ("--data-dir", "/data", "--insecure")


def load(*flags: str, environment: dict[str, str] | None = None) -> WriterSettings:
    return load_settings(WriterSettings, "writer", "The writer.", flags, environment or {})


def config_file(path: Path, text: str) -> tuple[str, str]:
    file = path / "agentmem.toml"
    file.write_text(text)
    return "--config", str(file)


def test_defaults() -> None:
    settings = load(*REQUIRED)
    assert settings.data_dir == Path("/data")
    assert settings.listen == "127.0.0.1:50051"
    assert settings.embedder == "wordllama"


def test_flags_before_environment_before_file_before_default(tmp_path: Path) -> None:
    file = config_file(tmp_path, '[writer]\ndrain_s = 1.5\nnode_id = "file"\nembedder = "none"\n')
    environment = {"AGENTMEM_WRITER_NODE_ID": "environment", "AGENTMEM_WRITER_EMBEDDER": "none"}
    settings = load(*REQUIRED, *file, "--embedder", "wordllama", environment=environment)
    assert (settings.drain_s, settings.node_id, settings.embedder) == (1.5, "environment", "wordllama")
    assert settings.max_queue_commands == 4096


def test_each_process_reads_its_own(tmp_path: Path) -> None:
    text = '[writer]\nlisten = "127.0.0.1:1"\n[replica]\nlisten = "127.0.0.1:2"\nwriter = "127.0.0.1:1"\n'
    flags = (*REQUIRED, *config_file(tmp_path, text))
    environment = {"AGENTMEM_REPLICA_SEAL_ROWS": "7", "AGENTMEM_TARGET": "of the command line"}
    assert load(*flags, environment=environment).listen == "127.0.0.1:1"
    replica = load_settings(ReplicaSettings, "replica", "A replica.", flags, environment)
    assert (replica.listen, replica.seal_rows) == ("127.0.0.1:2", 7)


def test_a_list_from_everywhere(tmp_path: Path) -> None:
    file = config_file(tmp_path, '[writer]\nembedder = ["wordllama", "none"]\n')
    environment = {"AGENTMEM_WRITER_EMBEDDER": "none,wordllama"}
    assert load(*REQUIRED, *file).embedder_names == ("wordllama", "none")
    assert load(*REQUIRED, *file, environment=environment).embedder_names == ("none", "wordllama")
    assert load(*REQUIRED, "--embedder", "none", "--embedder", "wordllama").embedder_names == (
        "none",
        "wordllama",
    )


def test_booleans_from_everywhere(tmp_path: Path) -> None:
    assert load("--data-dir", "/d", environment={"AGENTMEM_WRITER_INSECURE": "true"}).insecure
    assert load("--data-dir", "/d", *config_file(tmp_path, "[writer]\ninsecure = true\n")).insecure


@pytest.mark.parametrize(
    ("flags", "environment", "text", "message"),
    [
        (("--insecure",), {}, "", "--data-dir is required"),
        (("--data-dir", "/d"), {}, "", "--insecure"),
        ((*REQUIRED, "--listen", "0.0.0.0:1"), {}, "", "loopback only"),
        ((*REQUIRED, "--listen", "example.org:1"), {}, "", "loopback only"),
        ((*REQUIRED, "--listen", "localhost"), {}, "", "host:port"),
        ((*REQUIRED, "--listen", "localhost:70000"), {}, "", "host:port"),
        ((*REQUIRED, "--embedder", "magic"), {}, "", "none, wordllama, openai"),
        ((*REQUIRED, "--embedder", "openai"), {}, "", "--openai-url"),
        ((*REQUIRED, "--embedder", "none", "--embedder", "openai"), {}, "", "--openai-url"),
        ((*REQUIRED, "--embedder", "none,magic"), {}, "", "not 'magic'"),
        ((*REQUIRED, "--embedder", "none,none"), {}, "", "--embedder has an item twice: 'none,none'"),
        (REQUIRED, {}, "[writer]\nembedder = ['none', 1]\n", "must be of type str"),
        (REQUIRED, {}, "[writer]\nnode_id = ['a']\n", "must be of type str"),
        ((*REQUIRED, "--drain-s", "soon"), {}, "", "--drain-s must be of type float"),
        ((*REQUIRED, "--drain-s", "0"), {}, "", "--drain-s must be above 0"),
        ((*REQUIRED, "--drain-s", "nan"), {}, "", "--drain-s must be above 0"),
        (
            REQUIRED,
            {"AGENTMEM_WRITER_DRAIN": "1"},
            "",
            "AGENTMEM_WRITER_DRAIN is not a setting; did",
        ),
        (REQUIRED, {"AGENTMEM_WRITER_INSECURE": "maybe"}, "", "must be true or false"),
        (REQUIRED, {}, "[writer]\ndrian_s = 1\n", "did you mean drain_s"),
        (REQUIRED, {}, "[writer]\ndrain_s = 'x'\n", "must be of type float"),
        (REQUIRED, {}, "[writer]\ninsecure = 1\n", "must be of type bool"),
        (REQUIRED, {}, "[writer]\ndrain_s = true\n", "must be of type float"),
        (REQUIRED, {}, "[writers]\n", "the sections are writer, replica"),
        (REQUIRED, {}, "writer = 1\n", "must be a table"),
        (REQUIRED, {}, "not toml", "cannot be read"),
    ],
)
def test_what_is_refused(
    tmp_path: Path, flags: tuple[str, ...], environment: dict[str, str], text: str, message: str
) -> None:
    file = config_file(tmp_path, text) if text else ()
    with pytest.raises(SettingsError, match=re.escape(message)):
        load(*flags, *file, environment=environment)


def test_a_missing_settings_file_is_refused() -> None:
    with pytest.raises(SettingsError, match="/nowhere"):
        load(*REQUIRED, "--config", "/nowhere")


@pytest.mark.parametrize(
    ("module", "kind"), [("agentmem.server", WriterSettings), ("agentmem.replica", ReplicaSettings)]
)
def test_help_lists_every_setting(module: str, kind: type) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True
    )
    for field in fields(kind):
        assert f"--{field.name.replace('_', '-')}" in done.stdout


def test_a_bad_setting_ends_the_process_with_one_line() -> None:
    environment = {name: text for name, text in os.environ.items() if not name.startswith("AGENTMEM_")}
    done = subprocess.run(
        [sys.executable, "-m", "agentmem.server", "--insecure"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "--data-dir is required" in done.stderr
