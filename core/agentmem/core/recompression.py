"""Work on dictionaries beside the writes: training new ones, and ending retired ones.

Everything is done in short transactions, so that writes wait for none of it for long.
"""

from __future__ import annotations

from itertools import islice

from agentmem.core.compression import TRAINING_SAMPLES, train
from agentmem.core.dictionaries import StoredDictionary
from agentmem.core.store import Store, WriteTransaction

CHUNK_RECORDS = 1000


def maintain_dictionaries(store: Store) -> None:
    """Does what is due: some seconds of work at the most.

    Raises:
        ResourceExhausted: ``STORE_FULL``; it goes on the next time.
    """
    for dictionary_id in store.dictionaries.retired():
        _end(store, dictionary_id)
    for number in store.dictionaries.untrained():
        _train(store, number)


def _end(store: Store, dictionary_id: int) -> None:
    """Writes again what was compressed with a retired dictionary, and deletes it."""
    # Behind the write that retires it, which may not be committed yet: that may use it before, and may have
    # to run again.
    store.commit(lambda transaction: transaction.retire_dictionary(dictionary_id))
    ordinal = 0
    while True:
        with store.read() as transaction:
            chunk = list(islice(transaction.compressed_with(dictionary_id, ordinal), CHUNK_RECORDS))
        if not chunk:
            break
        ordinal = chunk[-1] + 1

        def rewrite(transaction: WriteTransaction, chunk: list[int] = chunk) -> None:
            for each in chunk:
                transaction.recompress(each)

        store.commit(rewrite)
    store.commit(lambda transaction: transaction.delete_dictionary(dictionary_id))
    store.dictionaries.forget(dictionary_id)


def _train(store: Store, number: int) -> None:
    """Gives a namespace a dictionary, if one pays."""
    with store.read() as transaction:
        name = transaction.namespace_name(number)
        space = transaction.namespace(name)
        ordinals = [state.ordinal for _, state in islice(transaction.live_ids(name), TRAINING_SAMPLES)]
        ordinals.sort()
        bodies = [transaction.record_body(ordinal) for ordinal in ordinals]
    data = train(bodies)
    if data is None:
        store.dictionaries.postpone(number, space.live_memories if space else 0)
        return
    stored = StoredDictionary(number, False, ordinals, data)
    dictionary_id = store.dictionaries.next_id(number)
    is_added = False
    try:
        # Not when a sample was removed meanwhile: then it is tried again.
        is_added = store.commit(lambda transaction: transaction.add_dictionary(dictionary_id, stored))
    finally:
        if not is_added:
            store.dictionaries.forget(dictionary_id)
    if is_added:
        store.dictionaries.take_up(dictionary_id, stored)
