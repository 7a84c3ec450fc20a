"""Settings: flags before environment before a TOML file before defaults.

A process describes its settings as a frozen dataclass whose fields are made with ``setting``. The field
``map_size_bytes`` of the section ``writer`` is ``--map-size-bytes`` on the command line,
``AGENTMEM_WRITER_MAP_SIZE_BYTES`` in the environment and ``map_size_bytes`` under ``[writer]`` in the file.
A name that is not a setting is refused wherever it stands.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import ipaddress
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

SECTIONS = ("writer", "replica")

T = TypeVar("T")


class SettingsError(Exception):
    """A setting is missing, unknown, or has a value that it cannot have."""


def setting(
    help: str,
    *,
    default: Any = dataclasses.MISSING,
    choices: Sequence[str] = (),
    is_list: bool = False,
) -> Any:
    """A field of a settings dataclass; without a default it must be given.

    A list is a str with commas between different items. Its flag may be repeated instead; in a file it may be
    an array.
    """
    metadata = {"help": help, "choices": tuple(choices), "is_list": is_list}
    return dataclasses.field(default=default, metadata=metadata)


def load_settings(
    kind: type[T], section: str, description: str, arguments: Sequence[str], environment: Mapping[str, str]
) -> T:
    """Reads the settings of one process.

    ``--help`` prints and exits. Raises SettingsError with a sentence that names the setting and its source.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    types = get_type_hints(kind)
    parser = _parser(fields, types, section, description)
    flags = vars(parser.parse_args(list(arguments)))
    prefix = f"AGENTMEM_{section.upper()}_"
    variables = {
        name.removeprefix(prefix).lower(): text
        for name, text in environment.items()
        if name.startswith(prefix)
    }
    config_path = flags.pop("config", None) or variables.pop("config", None)
    values: dict[str, Any] = {}
    if config_path:
        values |= _read_file(Path(config_path), section, fields, types)
    for name, text in variables.items():
        _check_known(name, fields, lambda name: f"the environment variable {prefix}{name.upper()}")
        values[name] = _parse(text, types[name], f"the environment variable {prefix}{name.upper()}")
    for name, text in flags.items():
        if isinstance(text, list):
            text = ",".join(text)
        value = text if isinstance(text, bool) else _parse(text, types[name], _flag(name))
        values[name] = value
    for name, field in fields.items():
        if name not in values and field.default is dataclasses.MISSING:
            raise SettingsError(f"{_flag(name)} is required: {field.metadata['help']}")
        if field.metadata["choices"]:
            _check_choices(name, values.get(name, field.default), field)
    return kind(**values)


def _check_choices(name: str, value: str, field: dataclasses.Field[Any]) -> None:
    choices = field.metadata["choices"]
    items = value.split(",") if field.metadata["is_list"] else [value]
    for item in items:
        if item not in choices:
            raise SettingsError(f"{_flag(name)} must be one of {', '.join(choices)}, not {item!r}")
    if len(set(items)) < len(items):
        raise SettingsError(f"{_flag(name)} has an item twice: {value!r}")


def config_path(section: str, arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    """The settings file that a process was given; empty when it was given none."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", default=environment.get(f"AGENTMEM_{section.upper()}_CONFIG", ""))
    found: str = parser.parse_known_args(list(arguments))[0].config
    return found


def as_environment(settings: Any, kind: type[Any], section: str) -> dict[str, str]:
    """The settings that are fields of ``kind``, as environment variables for another process's section."""
    return {
        f"AGENTMEM_{section.upper()}_{field.name.upper()}": str(getattr(settings, field.name))
        for field in dataclasses.fields(kind)
    }


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _parser(
    fields: Mapping[str, dataclasses.Field[Any]], types: Mapping[str, Any], section: str, description: str
) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"agentmem-{'server' if section == 'writer' else section}",
        description=description,
        epilog=f"Each setting is also AGENTMEM_{section.upper()}_<NAME> in the environment and <name> under "
        f"[{section}] in the file given with --config; flags are stronger than the environment, and the "
        "environment is stronger than the file.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="a TOML file with settings")
    for name, field in fields.items():
        default = "required" if field.default is dataclasses.MISSING else f"default: {field.default!s}"
        text = f"{field.metadata['help']} ({default})".replace("%", "%%")
        if types[name] is bool:
            parser.add_argument(_flag(name), action=argparse.BooleanOptionalAction, help=text)
        else:
            choices = field.metadata["choices"]
            metavar = "{" + ",".join(choices) + "}" if choices else types[name].__name__.upper()
            action = "append" if field.metadata["is_list"] else "store"
            parser.add_argument(_flag(name), metavar=metavar, help=text, action=action)
    return parser


def _read_file(
    path: Path, section: str, fields: Mapping[str, Any], types: Mapping[str, Any]
) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"the settings file {path} cannot be read: {error}") from error
    for name in document:
        if name not in SECTIONS:
            raise SettingsError(f"{path} has [{name}]; the sections are {', '.join(SECTIONS)}")
    table = document.get(section, {})
    if not isinstance(table, dict):
        raise SettingsError(f"{section} in {path} must be a table")
    values = {}
    for name, value in table.items():
        where = f"{name} under [{section}] in {path}"
        _check_known(name, fields, lambda _, where=where: where)
        is_array = isinstance(value, list) and all(isinstance(item, str) for item in value)
        if fields[name].metadata["is_list"] and is_array:
            value = ",".join(value)
        is_bool = isinstance(value, bool)
        if is_bool != (types[name] is bool) or not isinstance(value, str | int | float):
            raise SettingsError(f"{where} must be of type {types[name].__name__}")
        values[name] = value if is_bool else _parse(str(value), types[name], where)
    return values


def _check_known(name: str, fields: Mapping[str, Any], where: Any) -> None:
    if name not in fields:
        close = difflib.get_close_matches(name, fields, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise SettingsError(f"{where(name)} is not a setting{hint}")


def _parse(text: str, kind: Any, where: str) -> Any:
    if kind is bool:
        if text.lower() in ("1", "true", "yes", "on"):
            return True
        if text.lower() in ("0", "false", "no", "off"):
            return False
        raise SettingsError(f"{where} must be true or false, not {text!r}")
    try:
        return kind(text)
    except ValueError as error:
        raise SettingsError(f"{where} must be of type {kind.__name__}, not {text!r}") from error


def check_positive(settings: Any, *names: str) -> None:
    """Raises SettingsError for a number that must be above zero and is not."""
    for name in names:
        if not getattr(settings, name) > 0:
            raise SettingsError(f"{_flag(name)} must be above 0, not {getattr(settings, name)}")


def split_address(address: str, name: str) -> tuple[str, int]:
    """``host:port`` as its parts; an IPv6 host stands in brackets."""
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isdecimal() or int(port) > 65535:
        raise SettingsError(f"{name} must be host:port, not {address!r}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def check_transport(listen: str, insecure: bool) -> None:
    """Serving without TLS must be asked for, and then stays on this machine."""
    host, _ = split_address(listen, "--listen")
    if not insecure:
        raise SettingsError("this release serves without TLS only: say so with --insecure (loopback only)")
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise SettingsError(f"--insecure serves on loopback only: --listen must not be on {host}")
