"""What a rehearsal model answers: a function of what it is asked, its name and the script's seed, and of nothing else.

No clock, no counter and no process-dependent hash goes in, so the same request has the same answer always and
everywhere. The answers are not meant to be clever, only plausible enough to look at and useful enough to build on:

- A judge is one whose instructions mention both *JSON* and *score*, or whose request asks for a JSON response format.
  It answers `{"score": 1..5, "reason": "..."}`, every score equally often.
- One whose instructions are to write, ask, pose or generate a *question* asks one about words of the last user message.
- Anyone else makes a few statements out of such words.
- An embedding is a unit vector. Each word adds to one coordinate, so texts that share words point in similar
  directions; a small part that depends on the whole text keeps different texts apart.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
import re
import struct
import zlib
from collections.abc import Iterator, Sequence

__all__ = ["chat_answer", "embedding"]

_WORD = re.compile(r"[A-Za-z_][A-Za-z_0-9]{3,}")
_JSON = re.compile(r"\bjson\b", re.IGNORECASE)
_SCORE = re.compile(r"\bscores?\b", re.IGNORECASE)
_ASKS_FOR_A_QUESTION = re.compile(r"\b(?:write|ask|pose|generate)\b[^.\n]{0,60}\bquestion", re.IGNORECASE)
_DULL_WORDS = """
about above after again also always another answer because been before being below between both cannot could
does each either else even every from give given have having here however into itself json less like made
make many message more most much must never none only other otherwise over passage please question reply
revise same score should since some such than that their them then there these they thing this those through
under until upon used uses using very want well were what when where whether which while will with within
without word would write your
"""
_DULL = frozenset(_DULL_WORDS.split())
_SPARE_WORDS = ("the subject", "its context", "the whole")
_QUESTIONS = (
    "How does {0} affect {1} when {2} is involved?",
    "Why would one choose {0} over {1} for {2}?",
    "What is the role of {0} in relation to {1} and {2}?",
    "When should {0} be preferred to {1}, and what follows for {2}?",
)
_STATEMENTS = (
    "In short, {0} determines how {1} behaves.",
    "The usual reason to reach for {0} is {1}.",
    "Where {0} matters, {1} has to be considered as well.",
    "Without {0} there would be no dependable {1}.",
    "{0} and {1} are best understood together.",
    "A careful reader will notice that {0} comes before {1}.",
)
_REASONS = (
    "The text treats {0} but neglects {1}.",
    "It is accurate on {0} and merely adequate on {1}.",
    "{0} is explained well, and {1} follows from it.",
    "It names {0} without saying how it relates to {1}.",
)
_LONGEST_READ = 4000
_WHOLE_TEXT_SHARE = 0.1


def chat_answer(
    model: str, messages: Sequence[tuple[str, str]], *, seed: int = 0, choice: int = 0, wants_json: bool = False
) -> str:
    """The reply to `messages`, which are pairs of role and text. Another `choice` is another reply."""
    dice = random.Random(_digest(str(seed), str(choice), model, *(part for message in messages for part in message)))
    asked = next((text for role, text in reversed(messages) if role == "user"), "")
    instructions = "\n".join((*(text for role, text in messages if role in ("system", "developer")), asked))
    words = _words(asked, dice)
    if wants_json or (_JSON.search(instructions) and _SCORE.search(instructions)):
        reason = dice.choice(_REASONS).format(next(words), next(words))
        return json.dumps({"score": dice.randint(1, 5), "reason": reason})
    if _ASKS_FOR_A_QUESTION.search(instructions):
        return dice.choice(_QUESTIONS).format(next(words), next(words), next(words))
    statements = dice.sample(_STATEMENTS, dice.randint(1, 3))
    return " ".join(statement.format(next(words), next(words)) for statement in statements)


def embedding(model: str, text: str, dimensions: int, *, seed: int = 0) -> bytes:
    """The unit vector of `text`: little-endian 32-bit floats, exactly as they travel in base64."""
    salt = _digest(str(seed), model)
    data = text.encode("utf-8", "surrogatepass")
    by_word = [0.0] * dimensions
    for word in data.lower().split():
        mark = zlib.crc32(word, salt & 0xFFFFFFFF)
        by_word[mark % dimensions] += 1.0 if mark & 0x80000000 else -1.0
    noise = hashlib.shake_128(b"%d:%s" % (salt, data)).digest(2 * dimensions)
    by_text = [number + 0.5 for number in struct.unpack(f"<{dimensions}h", noise)]
    share = _WHOLE_TEXT_SHARE * (math.hypot(*by_word) or 1.0) / math.hypot(*by_text)
    vector = [word + share * rest for word, rest in zip(by_word, by_text, strict=True)]
    length = math.hypot(*vector)
    return struct.pack(f"<{dimensions}f", *(coordinate / length for coordinate in vector))


def _digest(*parts: str) -> int:
    """A number of 64 bits. Each part goes in with its length, so that no two lists of parts look the same."""
    state = hashlib.blake2b(digest_size=8)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        state.update(b"%d:" % len(data))
        state.update(data)
    return int.from_bytes(state.digest(), "big")


def _words(text: str, dice: random.Random) -> Iterator[str]:
    """Telling words of `text` in an order of their own, over and over."""
    found = list(dict.fromkeys(_WORD.findall(text[:_LONGEST_READ])))
    telling = [word for word in found if word.lower() not in _DULL]
    telling += _SPARE_WORDS[len(telling) :]
    return itertools.cycle(dice.sample(telling, min(len(telling), 6)))
