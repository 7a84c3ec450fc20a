"""The commands that write and read memories."""

from typing import Annotated

from agentmem.cli import arguments, documents, printing, terminal
from agentmem.cli.connection import DEFAULT_TARGET, connected
from agentmem.cli.failures import CommandError, ExitCode, usage_error
from agentmem.cli.options import (
    DEFAULT_TIMEOUT_S,
    Ack,
    AgentId,
    AllTags,
    Argument,
    AsOf,
    ConsistencyText,
    EventTime,
    ExpectedVersion,
    ExpireTime,
    Id,
    Importance,
    Json,
    Meta,
    Namespace,
    OnDuplicate,
    Option,
    SessionId,
    Since,
    Tags,
    Target,
    TimeoutS,
    Ttl,
    Types,
    Until,
    UserId,
    Where,
)
from agentmem.client import (
    AddOutcome,
    DuplicatePolicy,
    Fuzziness,
    MemoryType,
    MemoryVersion,
    NewMemory,
    SearchMode,
    SearchOrder,
    SearchWeights,
    at_least,
)

_MAX_PAGE_SIZE = 500


def add(
    content: Annotated[str, Argument(help="The text, or - to read it from standard input.")],
    namespace: Namespace = "",
    id: Annotated[str, Option(help="Its id. Default: one is assigned.")] = "",
    type: Annotated[MemoryType, Option(help="What kind of memory it is.")] = MemoryType.EPISODIC,
    user_id: UserId = None,
    agent_id: AgentId = None,
    session_id: SessionId = None,
    importance: Importance = None,
    tag: Tags = None,
    meta: Meta = None,
    event_time: EventTime = None,
    expire_time: ExpireTime = None,
    ttl: Ttl = None,
    on_duplicate: OnDuplicate = DuplicatePolicy.ADD,
    ack: Ack = None,
    target: Target = DEFAULT_TARGET,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    json: Json = False,
) -> None:
    """Adds a memory and prints its id, or that of the memory that was there already."""
    fields = arguments.fields(user_id, agent_id, session_id, importance, tag, meta)
    fields |= arguments.times(event_time, expire_time, ttl)
    text = arguments.text(content)
    acknowledgement = arguments.acknowledgement(ack)
    with connected(target, timeout_s, namespace) as client:
        memory = NewMemory(text, id=id, type=type, **fields)
        result = client.add(namespace, memory, on_duplicate=on_duplicate, acknowledgement=acknowledgement)
    added = result.memories[0]
    if json:
        documents.print_line(documents.from_addition(result))
        return
    terminal.say(added.id)
    if added.outcome is not AddOutcome.ADDED:
        terminal.note(f"{added.outcome}: it was there already")
    printing.note_acknowledged(result.acknowledged)


def get(
    id: Id,
    namespace: Namespace = "",
    as_of: AsOf = None,
    consistency: ConsistencyText = None,
    target: Target = DEFAULT_TARGET,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    json: Json = False,
) -> None:
    """Prints one memory."""
    moment = arguments.as_of(as_of)
    wanted = arguments.consistency(consistency)
    with connected(target, timeout_s, namespace) as client:
        memory = client.get(namespace, id, as_of=moment, consistency=wanted)
    if memory is None:
        raise CommandError(f"no memory {id!r} in namespace {namespace!r}", ExitCode.NOT_FOUND)
    if json:
        documents.print_line(documents.from_memory(memory))
    else:
        printing.print_memory(memory)


def update(
    id: Id,
    namespace: Namespace = "",
    content: Annotated[str | None, Option(help="The new text, or - for standard input.")] = None,
    type: Annotated[MemoryType | None, Option(help="What kind of memory it is.")] = None,
    user_id: UserId = None,
    agent_id: AgentId = None,
    session_id: SessionId = None,
    importance: Importance = None,
    tag: Annotated[list[str] | None, Option(help="Instead of all its tags. Repeatable.")] = None,
    clear_tags: Annotated[bool, Option("--clear-tags", help="Take all its tags away.")] = False,
    meta: Annotated[
        list[str] | None, Option(help="key=value instead of all its metadata. Repeatable.")
    ] = None,
    clear_meta: Annotated[bool, Option("--clear-meta", help="Take all its metadata away.")] = False,
    event_time: Annotated[str | None, Option(help="When it happened: an ISO date or time.")] = None,
    expire_time: ExpireTime = None,
    ttl: Ttl = None,
    clear_expire_time: Annotated[
        bool, Option("--clear-expire-time", help="It does not end by itself any more.")
    ] = False,
    expected_version: ExpectedVersion = None,
    ack: Ack = None,
    target: Target = DEFAULT_TARGET,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    json: Json = False,
) -> None:
    """Changes the fields that are given and prints the new version."""
    fields = arguments.fields(user_id, agent_id, session_id, importance, tag, meta)
    fields |= arguments.times(event_time, expire_time, ttl)
    if content is not None:
        fields["content"] = arguments.text(content)
    if type is not None:
        fields["type"] = type
    if clear_tags:
        fields["tags"] = ()
    if clear_meta:
        fields["metadata"] = {}
    if clear_expire_time:
        if "expire_time" in fields or "ttl" in fields:
            raise usage_error("--clear-expire-time: not together with --expire-time or --ttl")
        fields["expire_time"] = None
    if not fields:
        raise usage_error("nothing to change: give at least one field, such as --content")
    acknowledgement = arguments.acknowledgement(ack)
    with connected(target, timeout_s, namespace) as client:
        memory = client.update(
            namespace, id, expected_version=expected_version, acknowledgement=acknowledgement, **fields
        )
    if json:
        documents.print_line(documents.from_update(memory))
    else:
        terminal.say(f"{memory.id} is at version {memory.version}")
        printing.note_acknowledged(memory.acknowledged)


def list_memories(
    namespace: Namespace = "",
    user_id: UserId = None,
    agent_id: AgentId = None,
    session_id: SessionId = None,
    type: Types = None,
    tag: AllTags = None,
    since: Since = None,
    until: Until = None,
    filter: Where = None,
    as_of: AsOf = None,
    limit: Annotated[int, Option(min=0, help="At most so many; 0 for all.")] = 100,
    with_embedding: Annotated[bool, Option("--with-embedding", help="In JSON, embeddings too.")] = False,
    consistency: ConsistencyText = None,
    target: Target = DEFAULT_TARGET,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    json: Json = False,
) -> None:
    """Prints memories in the order of their ids. As JSON lines they can be imported again."""
    scope = arguments.scope(user_id, agent_id, session_id, type, tag, since, until)
    narrowing = arguments.where(filter)
    moment = arguments.as_of(as_of)
    printed, page_token = 0, ""
    wanted = arguments.consistency(consistency)
    with connected(target, timeout_s, namespace) as client:
        while True:
            size = min(_MAX_PAGE_SIZE, limit - printed) if limit else _MAX_PAGE_SIZE
            page = client.list(
                namespace,
                filter=narrowing,
                page_size=size,
                page_token=page_token,
                include_embedding=with_embedding,
                as_of=moment,
                consistency=wanted,
                **scope,
            )
            # What the first page showed the next ones show too, from whatever replica.
            wanted &= at_least(page)
            if json:
                for memory in page.memories:
                    documents.print_line(documents.from_memory(memory))
            else:
                printing.print_memories(page.memories)
            printed += len(page.memories)
            page_token = page.next_page_token
            if not page_token or printed == limit:
                break
    if page_token:
        terminal.note(f"there are more than {limit}: see them with --limit, 0 for all")
    elif not printed:
        terminal.note("no memory matches")


def search(
    text: Annotated[str, Argument(help="The question.")],
    namespace: Namespace = "",
    mode: Annotated[
        SearchMode, Option(help="By meaning, words, misspelt words, or a phrase.")
    ] = SearchMode.HYBRID,
    max_edits: Annotated[
        int | None, Option(min=0, max=2, help="How misspelt a word may be; by its length when not given.")
    ] = None,
    prefix: Annotated[bool, Option("--prefix", help="The last word may be only begun.")] = False,
    top_k: Annotated[int, Option("--top-k", "-k", min=1, max=1000, help="How many hits.")] = 10,
    min_score: Annotated[float | None, Option(help="Leave out hits with a lower score.")] = None,
    order: Annotated[SearchOrder, Option(help="Of the hits: by score, or by time.")] = SearchOrder.SCORE,
    recency: Annotated[
        float | None, Option(min=0, max=1000, help="What being new counts for; words and meaning are 1 each.")
    ] = None,
    importance: Annotated[float | None, Option(min=0, max=1000, help="What importance counts for.")] = None,
    explain: Annotated[
        bool, Option("--explain", help="Say how it was done, and why each hit is there.")
    ] = False,
    user_id: UserId = None,
    agent_id: AgentId = None,
    session_id: SessionId = None,
    type: Types = None,
    tag: AllTags = None,
    since: Since = None,
    until: Until = None,
    filter: Where = None,
    as_of: AsOf = None,
    consistency: ConsistencyText = None,
    target: Target = DEFAULT_TARGET,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    json: Json = False,
) -> None:
    """Finds memories, best first. Prints score, time, owner, id and content."""
    scope = arguments.scope(user_id, agent_id, session_id, type, tag, since, until)
    narrowing = arguments.where(filter)
    wanted = arguments.consistency(consistency)
    fuzziness = Fuzziness(max_edits, prefix) if max_edits is not None or prefix else None
    moment = arguments.as_of(as_of)
    weights = None
    if recency is not None or importance is not None:
        weights = SearchWeights(recency=recency, importance=importance or 0.0)
    with connected(target, timeout_s, namespace) as client:
        result = client.search(
            namespace,
            text,
            mode=mode,
            fuzziness=fuzziness,
            min_score=min_score,
            order=order,
            weights=weights,
            explain=explain,
            top_k=top_k,
            filter=narrowing,
            as_of=moment,
            consistency=wanted,
            **scope,
        )
    if json:
        documents.print_line(documents.from_search(result))
        return
    if result.hits:
        printing.print_hits(result.hits)
    else:
        terminal.note("no memory matches")
    if result.explanation is not None:
        printing.print_explanation(result, result.explanation)


def history(
    id: Id,
    namespace: Namespace = "",
    limit: Annotated[int, Option(min=0, help="At most so many versions; 0 for all.")] = 100,
    consistency: ConsistencyText = None,
    target: Target = DEFAULT_TARGET,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    json: Json = False,
) -> None:
    """Prints the versions of a memory, newest first, also of one that was deleted."""
    versions: list[MemoryVersion] = []
    page_token = ""
    wanted = arguments.consistency(consistency)
    with connected(target, timeout_s, namespace) as client:
        while True:
            size = min(_MAX_PAGE_SIZE, limit - len(versions)) if limit else _MAX_PAGE_SIZE
            page = client.history(namespace, id, page_size=size, page_token=page_token, consistency=wanted)
            wanted &= at_least(page)
            versions += page.versions
            page_token = page.next_page_token
            if not page_token or len(versions) == limit:
                break
    if json:
        documents.print_line(
            {
                "id": id,
                "versions": [documents.from_version(version) for version in versions],
                "pruned": page.pruned,
                "more": bool(page_token),
                "applied_revision": page.applied_revision,
                "epoch": page.epoch,
            }
        )
        return
    printing.print_versions(versions)
    if page_token:
        terminal.note(f"there are more than {limit}: see them with --limit, 0 for all")
    elif page.pruned:
        terminal.note("older versions were removed by retention")
