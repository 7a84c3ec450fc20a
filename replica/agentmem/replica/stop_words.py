"""English words that say nothing of what a question is about."""

from __future__ import annotations

# Articles, pronouns, auxiliaries, prepositions, conjunctions, question words, and what an apostrophe leaves.
_WORDS = """
a an the this that these those
i me my mine myself we us our ours ourselves you your yours yourself yourselves
he him his himself she her hers herself it its itself they them their theirs themselves
am is are was were be been being have has had having do does did doing done
will would shall should can could might must
and but or nor so if because as until while than then
of at by for with about against between into through during before after above below
to from up down in out on off over under again further once
here there when where why how what which who whom whose
all any both each few more most other some such no not only own same too very just now
s t d ll m re ve don doesn didn isn aren wasn weren hasn haven hadn won wouldn shouldn couldn cannot
"""

STOP_WORDS = frozenset(_WORDS.split())
