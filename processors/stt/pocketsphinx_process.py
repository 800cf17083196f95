"""PocketSphinx in a process of its own, for English at 16 kHz; the models are in its wheel.

    sphinx = PocketSphinxProcess(sleep=clock.sleep)
    await sphinx.start(grammar)
    await sphinx.begin()
    await sphinx.feed(pcm)          # as it comes; give it 200-300 ms from before the start of speech
    hypothesis = await sphinx.finish()

The decoder holds the GIL for 3-10 ms in every 32 ms of speech, hence the process. One utterance at a time: two
callers need two processes. Cancelling any method is safe: the next `begin()` starts afresh.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ...pipeline.errors import ServiceError
from ..subprocess.parent import ChildProcess, ServiceRefused, Sleep, require_package
from ..subprocess.wire import WireMessage
from .jsgf import GrammarError, Word, check_grammar
from .phone_similarity import accepts_grammar, phone_similarity

SAMPLE_RATE = 16_000

CEPSTRAL_MEAN = (46.33, -6.67, 0.57, 4.47, -0.18, -1.99, -2.12, -1.95, -4.05, -0.82, -4.62, 0.11, 1.0)
"""Initial cepstral mean: people who speak into ordinary microphones.

The decoder's default (40, 3, -1, 0, ...) costs words in the first seconds: "go forward ten years" for "ten meters".
Learned from four recordings of the CMU Sphinx test data.
"""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """Result of one utterance.

    ``text``: the grammar's sentence if it is accepted (see `phone_similarity.py`), else the language model's text;
    empty without speech. ``in_grammar``: whether the text is the grammar's. ``agreement``: similarity (0 to 1) of the
    grammar's and the language model's result, as pronounced; the decoder's own posterior says little (1e-4 for right
    answers). Both are None without a grammar. ``audio_ms``: audio that was fed; ``decode_ms``: CPU time in the process.
    """

    text: str
    in_grammar: bool | None
    lm_text: str
    agreement: float | None
    audio_ms: int
    decode_ms: float


class PocketSphinxProcess:
    """A recogniser in a process. ``sleep``: the clock's, in seconds. Raises `ServiceError` and its subclasses."""

    def __init__(self, *, sleep: Sleep) -> None:
        self._child = ChildProcess("PocketSphinx", "voxline.processors.stt.pocketsphinx_child", sleep=sleep)
        self._mean: tuple[float, ...] = CEPSTRAL_MEAN
        self._open = False

    @property
    def cepstral_mean(self) -> tuple[float, ...]:
        """The caller's cepstral mean so far, 13 numbers. Pass it to `begin()` of another process."""
        return self._mean

    @property
    def pid(self) -> int | None:
        """Process id while the process runs, else None."""
        return self._child.pid

    async def start(self, grammar: str | None = None) -> None:
        """Start the process and load the models (0.5 s, 111 MB).

        ``grammar``: a JSGF text. Raises `GrammarError` if it is wrong or has words that the dictionary does not
        know, `MissingExtraError` without the package. After a crash it can be called again.
        """
        require_package("PocketSphinx", "pocketsphinx", "pocketsphinx", "speech")
        words = check_grammar(grammar).words if grammar is not None else ()
        self._open = False
        await self._child.start()
        try:
            await self._child.request("start", grammar=grammar or "", words=[word.text for word in words])
        except ServiceRefused as refused:
            await self._child.close()
            raise _grammar_error(refused, words) from refused
        except ServiceError:
            await self._child.close()
            raise
        except BaseException:
            self._child.kill()
            raise

    async def begin(self, cepstral_mean: Sequence[float] | None = None) -> None:
        """Start an utterance. Drops an open one.

        ``cepstral_mean``: the mean of a new caller; without it the current mean stays.
        """
        if cepstral_mean is not None:
            if len(cepstral_mean) != len(CEPSTRAL_MEAN):
                raise ValueError(f"a cepstral mean has 13 numbers, not {len(cepstral_mean)}")
            self._mean = tuple(cepstral_mean)
        self._open = False
        await self._child.send("begin", mean=",".join(f"{value:g}" for value in self._mean))
        self._open = True

    async def feed(self, pcm: bytes | memoryview) -> None:
        """Add speech: int16 little-endian, mono, 16 kHz, in pieces of any whole number of samples.

        Returns at once unless the decoder is several seconds behind.
        """
        self._require_open("feed")
        view = memoryview(pcm).cast("B")
        if len(view) % 2:
            raise ValueError(f"{len(view)} bytes is not a whole number of 16-bit samples")
        await self._child.send("feed", view)

    async def partial(self) -> str:
        """Return the text so far. It may still change."""
        self._require_open("partial")
        text, _, _ = _choose(await self._child.request("partial"))
        return text

    async def finish(self) -> Hypothesis:
        """End the utterance and return its result."""
        self._require_open("finish")
        self._open = False
        answer = await self._child.request("finish")
        self._mean = tuple(float(value) for value in answer.text("mean").split(","))
        text, in_grammar, agreement = _choose(answer)
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

    def _require_open(self, method: str) -> None:
        if not self._open:
            raise ServiceError(f"PocketSphinx: {method}() without an utterance: call begin() first")


def _choose(answer: WireMessage) -> tuple[str, bool | None, float | None]:
    """Choose between grammar and language model: the text, whether it is the grammar's, and their similarity."""
    lm_text = answer.text("lm")
    if "grammar" not in answer.header:
        return lm_text, None, None
    ours, theirs = (answer.text(f"{name}_phones").split() for name in ("grammar", "lm"))
    if accepts_grammar(ours, theirs):
        return answer.text("grammar"), True, phone_similarity(ours, theirs)
    return lm_text, False, phone_similarity(ours, theirs) if ours else 0.0


def _grammar_error(refused: ServiceRefused, words: Sequence[Word]) -> GrammarError:
    """Only a grammar is refused. Name its unknown words with their lines."""
    unknown = [str(word) for word in refused.answer.items("unknown_words")]
    if not unknown:
        return GrammarError(str(refused))
    lines = {word.text: word.line for word in words}
    named = ", ".join(f"{word!r} (line {lines[word]})" for word in unknown)
    case = "" if all(word == word.lower() for word in unknown) else " Its words are in lower case."
    return GrammarError(f"the grammar has words that the dictionary does not know: {named}.{case}")
