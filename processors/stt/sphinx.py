"""PocketSphinx in a process of its own, for English at 16 kHz; the models are in its wheel.

    sphinx = SphinxProcess(sleep=clock.sleep)
    await sphinx.start(grammar)
    await sphinx.begin()
    await sphinx.feed(pcm)          # as it comes; give it 200-300 ms from before the start of speech
    hypothesis = await sphinx.finish()

It holds the GIL for 3-10 ms in every 32 ms of speech, hence the process. One utterance at a time; whoever has
two callers takes two processes. Cancelling any of its methods is safe: the next `begin()` starts afresh.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ...pipeline.errors import ServiceError
from ..child import ChildProcess, Sleep, require_package
from ..child_wire import Message
from .jsgf import GrammarError, Word, check_grammar

SAMPLE_RATE = 16_000

CEPSTRAL_MEAN = (46.33, -6.67, 0.57, 4.47, -0.18, -1.99, -2.12, -1.95, -4.05, -0.82, -4.62, 0.11, 1.0)
"""The cepstral mean of people speaking into ordinary microphones, to begin with.

The decoder's own (40, 3, -1, 0, ...) costs words until it has heard some seconds: "go forward ten years" for
"ten meters". Learned from four recordings of the CMU Sphinx test data.
"""

AGREEMENT = 0.5
"""The share of words that both decoders must have heard before a grammar's answer is believed."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What was heard in one utterance.

    `text` is the grammar's sentence where it is believed, else what the language model heard; empty for no
    speech. `in_grammar` is None without a grammar. `agreement` is the share of words (0 to 1) that grammar
    and language model have in common, None without a grammar; the decoder's own posterior says little (1e-4
    for right answers). `audio_ms` is what was fed; `decode_ms` the CPU time that it took in the process.
    """

    text: str
    in_grammar: bool | None
    lm_text: str
    agreement: float | None
    audio_ms: int
    decode_ms: float


class SphinxProcess:
    """A recogniser in a process. `sleep` is the clock's, in seconds. Errors are ServiceError and its kind."""

    def __init__(self, *, sleep: Sleep) -> None:
        self._child = ChildProcess("PocketSphinx", "voxline.processors.stt.sphinx_child", sleep=sleep)
        self._mean: tuple[float, ...] = CEPSTRAL_MEAN
        self._open = False

    @property
    def cepstral_mean(self) -> tuple[float, ...]:
        """The caller's cepstral mean so far, 13 numbers: give it to `begin()` in another process."""
        return self._mean

    @property
    def pid(self) -> int | None:
        """The process's number while it runs, else None."""
        return self._child.pid

    async def start(self, grammar: str | None = None) -> None:
        """Start the process and load the models (0.5 s, 111 MB).

        `grammar` is a JSGF text. Raises GrammarError where it is wrong or has a word that the dictionary does
        not know, MissingExtraError without the package. After a crash it can be called again.
        """
        require_package("PocketSphinx", "pocketsphinx", "pocketsphinx", "speech")
        words = check_grammar(grammar).words if grammar is not None else ()
        self._open = False
        await self._child.start()
        try:
            await self._child.request("start", grammar=grammar or "", words=[word.text for word in words])
        except ServiceError as error:
            await self._child.close()
            raise _explain(error, words) from error
        except BaseException:
            self._child.kill()
            raise

    async def begin(self, cepstral_mean: Sequence[float] | None = None) -> None:
        """Begin an utterance; one that is still open is dropped.

        `cepstral_mean` says that a caller is another than before; without it the mean is carried on.
        """
        if cepstral_mean is not None:
            if len(cepstral_mean) != len(CEPSTRAL_MEAN):
                raise ValueError(f"a cepstral mean has 13 numbers, this has {len(cepstral_mean)}")
            self._mean = tuple(cepstral_mean)
        self._open = False
        await self._child.send("begin", mean=",".join(f"{value:g}" for value in self._mean))
        self._open = True

    async def feed(self, pcm: bytes | memoryview) -> None:
        """Add speech: int16 little-endian, mono, 16 kHz, in pieces of any whole number of samples.

        Returns at once unless the decoder is more than some seconds behind.
        """
        self._require_open("feed")
        view = memoryview(pcm).cast("B")
        if len(view) % 2:
            raise ValueError(f"{len(view)} bytes are not whole 16-bit samples")
        await self._child.send("feed", view)

    async def partial(self) -> str:
        """What is heard so far; it can still change."""
        self._require_open("partial")
        text, _, _ = _judge(await self._child.request("partial"))
        return text

    async def finish(self) -> Hypothesis:
        """End the utterance and say what was heard."""
        self._require_open("finish")
        self._open = False
        answer = await self._child.request("finish")
        self._mean = tuple(float(value) for value in answer.text("mean").split(","))
        text, in_grammar, agreement = _judge(answer)
        return Hypothesis(
            text=text,
            in_grammar=in_grammar,
            lm_text=answer.text("lm"),
            agreement=agreement,
            audio_ms=int(answer.number("audio_ms")),
            decode_ms=answer.number("decode_ms"),
        )

    async def close(self) -> None:
        """End the process and wait until it is gone. Does nothing if there is none."""
        self._open = False
        await self._child.close()

    def _require_open(self, what: str) -> None:
        if not self._open:
            raise ServiceError(f"PocketSphinx: {what}() without an utterance: call begin() first")


def agreement(grammar_text: str, lm_text: str) -> float:
    """The share of words, 0 to 1, that two hypotheses have in common, measured on the longer one.

    A word that one hears as two counts as those two: "goodbye" is "good bye".
    """
    ours, theirs = grammar_text.split(), lm_text.split()
    ours, theirs = _split_like(ours, theirs), _split_like(theirs, ours)
    longer = max(len(ours), len(theirs))
    return (Counter(ours) & Counter(theirs)).total() / longer if longer else 1.0


def _split_like(words: list[str], other: list[str]) -> list[str]:
    pairs = {first + second: (first, second) for first, second in pairwise(other)}
    return [part for word in words for part in pairs.get(word, (word,))]


def _judge(answer: Message) -> tuple[str, bool | None, float | None]:
    """The text to believe, whether it is the grammar's, and how far the two decoders agree."""
    lm_text = answer.text("lm")
    if "grammar" not in answer.header:
        return lm_text, None, None
    grammar_text = answer.text("grammar")
    share = agreement(grammar_text, lm_text)
    # Only the rule was right 12 times of 12: a grammar by itself never rejects.
    if grammar_text and share >= AGREEMENT:
        return grammar_text, True, share
    return lm_text, False, share if grammar_text else 0.0


def _explain(error: ServiceError, words: Sequence[Word]) -> Exception:
    _, found, unknown = str(error).partition("unknown words: ")
    if not found:
        return GrammarError(str(error)) if "the grammar" in str(error) else error
    lines = {word.text: word.line for word in words}
    named = ", ".join(f"{word!r} (line {lines[word]})" for word in unknown.split())
    case = " Its words are in lower case." if unknown != unknown.lower() else ""
    return GrammarError(f"the grammar has words that the dictionary does not know: {named}.{case}")
