"""The commands about the nodes of a cluster, and about one on this machine."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Annotated, Any

from agentmem.cli import bundled, documents, node_figures, printing, supervisor, terminal
from agentmem.cli import cluster as local
from agentmem.cli.connection import DEFAULT_TARGET, connected, translated, unreachable_addresses
from agentmem.cli.options import (
    DEFAULT_DATA_DIR,
    DEFAULT_TIMEOUT_S,
    Argument,
    DataDir,
    Json,
    Option,
    Target,
    TimeoutS,
)
from agentmem.client import AgentMemError, Client
from agentmem.client.async_cluster import DEFAULT_PROMOTION_TIMEOUT_S

NODE_TIMEOUT_S = 2.0


def status(
    target: Target = DEFAULT_TARGET, timeout_s: TimeoutS = DEFAULT_TIMEOUT_S, json: Json = False
) -> None:
    """Prints the nodes of the cluster, and its epoch.

    LAG is in revisions behind the writer; the searches of a replica show all that is older than its SECONDS.

    A node that the cluster lists and that nobody can connect to from here is shown as unreachable. One that
    keeps acknowledged writes which a promotion left behind is named. As JSON each node comes with its epoch,
    its memory, and the sizes of its store and indexes; null is what it did not say.
    """
    with connected(target, timeout_s) as client:
        topology = client.topology()
        unreachable = unreachable_addresses([node.address for node in topology.nodes])
        reachable = [node.address for node in topology.nodes if node.address not in unreachable]
        with ThreadPoolExecutor(max(1, len(reachable))) as pool:
            known = dict(
                zip(reachable, pool.map(lambda each: _known_of(client, each), reachable), strict=True)
            )
    nodes = printing.described(topology, unreachable, known)
    if json:
        cluster = {
            "cluster_id": topology.cluster_id,
            "epoch": topology.epoch,
            "answered_by": topology.answered_by,
        }
        documents.print_line(cluster | {"nodes": nodes})
    else:
        printing.print_nodes(nodes)
        terminal.say(f"epoch {topology.epoch}")


def _known_of(client: Client, address: str) -> dict[str, Any]:
    """What a node says of itself; nothing when it hangs, or ends just now."""
    try:
        said = client.node_status(address, timeout_s=NODE_TIMEOUT_S)
    except AgentMemError:
        return {}
    known = {name: getattr(said, name) for name in ("epoch", "known_epoch", "set_aside_entries")}
    try:
        return known | node_figures.sizes(client.node_report(address, timeout_s=NODE_TIMEOUT_S))
    except AgentMemError:
        return known  # of a release without reports


def promote(
    node: Annotated[str, Argument(help="The replica's id, or its address.")],
    target: Target = DEFAULT_TARGET,
    force: Annotated[
        bool,
        Option(help="Also when another replica has more, or the writer does not hand over."),
    ] = False,
    timeout_s: TimeoutS = DEFAULT_PROMOTION_TIMEOUT_S,
    json: Json = False,
) -> None:
    """Makes a replica the writer.

    A writer that is there hands over, and nothing is left behind. One that is not there is refused by all
    others when it comes back, and then keeps what it had acknowledged and not shipped in a file.
    """
    with connected(target, timeout_s) as client:
        promoted = client.promote(node, force=force, timeout_s=timeout_s)
    if json:
        documents.print_line(asdict(promoted))
        return
    terminal.say(
        f"{promoted.node_id} at {promoted.address} is the writer of epoch {promoted.epoch}, "
        f"which begins behind revision {promoted.revision}"
    )
    if promoted.handed_over:
        terminal.say(f"{promoted.previous_address} handed over: nothing was left behind")
    else:
        terminal.note(
            f"{promoted.previous_address} did not hand over: when it comes back, it keeps what it had "
            "acknowledged and not shipped in set-aside/ of its data directory"
        )
    if promoted.untold:
        terminal.note(f"not told yet, for they cannot be reached: {', '.join(promoted.untold)}")


def up(
    replicas: Annotated[int, Option(help="How many replicas.")] = 2,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    port: Annotated[
        int,
        Option(min=0, max=65535, help="The writer's; replicas take the next ones. 0: any free ones."),
    ] = 50051,
    with_sample: Annotated[
        bool, Option("--sample", help="Import bundled conversations on the first start.")
    ] = False,
    embedder: Annotated[
        list[str] | None,
        Option(help="What embeds texts; the first is for new namespaces. Repeatable. Default: as last time."),
    ] = None,
) -> None:
    """Runs a cluster on this machine until Ctrl-C. The processes log to <data-dir>/logs."""
    prepare = bundled.show if with_sample else None
    raise SystemExit(
        supervisor.serve(data_dir, local.check_replicas(replicas), port, prepare, embedders=embedder or ())
    )


def scale(
    replicas: Annotated[int, Argument(help="How many replicas shall run.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Starts or stops replicas run by `up`. What crashed is started again."""
    cluster = local.LocalCluster(data_dir)
    with translated(str(data_dir)):
        started, stopped, killed = local.scale(cluster, local.check_replicas(replicas))
    for message in killed:
        terminal.note(message)
    for verb, names in (("started", started), ("stopped", stopped)):
        if names:
            terminal.say(f"{verb} {', '.join(names)}")
    terminal.say(f"{len(cluster.owned()) - 1} of {replicas} replicas run in {data_dir}")


def down(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Stops a cluster started with `up`. Works whatever became of the command that started it."""
    cluster = local.LocalCluster(data_dir)
    names = [folder.name for folder in cluster.owned()]
    if not names:
        terminal.say(f"nothing runs in {data_dir}")
        return
    supervisor.stop(cluster)
    terminal.say(f"stopped {', '.join(names)}")
