"""The commands about what a namespace holds and keeps."""

import time
from typing import Annotated, Any

from agentmem.cli import arguments, documents, printing, terminal
from agentmem.cli.connection import DEFAULT_TARGET, connected
from agentmem.cli.failures import CommandError, usage_error
from agentmem.cli.options import (
    DEFAULT_TIMEOUT_S,
    Argument,
    ConsistencyText,
    Json,
    Namespace,
    Option,
    Target,
    TimeoutS,
)
from agentmem.client import BegunReembedding, Client, NamespaceSettings, VectorPrecision, at_least

PROGRESS_INTERVAL_S = 0.2


def stats(
    namespace: Namespace = "",
    breakdown: Annotated[
        bool,
        Option(
            "--breakdown",
            help="Counts by type and owner, and the size and freshness of the indexes, from a replica.",
        ),
    ] = False,
    consistency: ConsistencyText = None,
    target: Target = DEFAULT_TARGET,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    json: Json = False,
) -> None:
    """Prints what a namespace, and the store of the node that answers, hold."""
    wanted = arguments.consistency(consistency)
    with connected(target, timeout_s, namespace) as client:
        document = documents.from_stats(client.stats(namespace, breakdown=breakdown, consistency=wanted))
    if json:
        documents.print_line(document)
    else:
        printing.print_fields(document["namespace"])
        printing.print_fields(document["store"])
        if breakdown:
            terminal.say()
            printing.print_breakdown(document["breakdown"])
            terminal.say()
            printing.print_fields(document["indexes"])


def show(
    namespace: Namespace = "",
    target: Target = DEFAULT_TARGET,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    json: Json = False,
) -> None:
    """Prints what a namespace keeps."""
    with connected(target, timeout_s, namespace) as client:
        settings = client.stats(namespace).namespace.settings
    _print(settings, json)


def change(
    namespace: Namespace = "",
    max_versions: Annotated[
        int | None, Option(min=0, max=1000, help="Versions kept of a memory, the newest included; 0: all.")
    ] = None,
    max_version_age: Annotated[
        str | None, Option(help="How long a version is kept after its end: 90s, 15m, 2h, 7d, or never.")
    ] = None,
    vector_precision: Annotated[
        VectorPrecision | None, Option(help="Of embeddings written from now on.")
    ] = None,
    embedder: Annotated[
        str | None,
        Option(help="What makes its embeddings; later only reembed changes it. Empty: the server's first."),
    ] = None,
    target: Target = DEFAULT_TARGET,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    json: Json = False,
) -> None:
    """Changes what a namespace keeps and prints it. What is too much or too old is removed for good."""
    settings: dict[str, Any] = {}
    if max_versions is not None:
        settings["max_versions"] = max_versions
    if max_version_age is not None:
        never = max_version_age == "never"
        settings["max_version_age"] = (
            None if never else arguments.parse_duration(max_version_age, "--max-version-age")
        )
    if vector_precision is not None:
        settings["vector_precision"] = vector_precision
    if embedder is not None:
        settings["embedder"] = embedder
    if not settings:
        raise usage_error("nothing to change: give at least one setting, such as --max-versions")
    with connected(target, timeout_s, namespace) as client:
        changed = client.update_namespace(namespace, **settings)
    _print(changed, json)


def reembed(
    embedder: Annotated[str, Option(help="The embedder of the server that makes the new embeddings.")],
    name: Annotated[str, Argument(metavar="NAMESPACE", help="As --namespace.")] = "",
    namespace: Namespace = "",
    wait: Annotated[
        bool, Option("--wait", help="Show how far the work is, and return when it is done.")
    ] = False,
    target: Target = DEFAULT_TARGET,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    json: Json = False,
) -> None:
    """Replaces the embeddings of a namespace, in the background. The present ones answer until then.

    Embeddings that callers brought are replaced, too. Naming the present embedder, or none, stops what was
    begun.
    """
    namespace = name or namespace
    with connected(target, timeout_s, namespace) as client:
        begun = client.reembed(namespace, embedder)
        if wait and begun.coming_model:
            _wait(client, namespace, begun)
    document = {
        "namespace": namespace,
        "embedding_model": begun.coming_model if wait and begun.coming_model else begun.embedding_model,
        "coming_embedding_model": "" if wait else begun.coming_model,
        "revision": begun.revision,
    }
    if json:
        documents.print_line(document)
    else:
        printing.print_fields(document)


def _wait(client: Client, namespace: str, begun: BegunReembedding) -> None:
    """Shows how far the work is, until it is done."""
    since = at_least(begun.revision)
    with terminal.count_progress("embedding") as on_progress:
        while True:
            stats = client.stats(namespace, consistency=since).namespace
            if stats.reembedding is None:
                break
            on_progress(stats.reembedding.done_versions, stats.reembedding.versions)
            time.sleep(PROGRESS_INTERVAL_S)
    if stats.embedding_model != begun.coming_model:
        raise CommandError(f"it was stopped: the embeddings are still of {stats.embedding_model or 'none'}")


def _print(settings: NamespaceSettings, json: bool) -> None:
    document = documents.from_settings(settings)
    if json:
        documents.print_line(document)
    else:
        printing.print_fields(document)
