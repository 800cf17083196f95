"""PocketSphinx in a process of its own, for English at 16 kHz; the models are in its wheel.

    sphinx = SphinxProcess(sleep=clock.sleep)
    await sphinx.start(grammar)
    await sphinx.begin()
    await sphinx.feed(pcm)          # as it comes; give it 200-300 ms from before the start of speech
    hypothesis = await sphinx.finish()

It holds the GIL for 3-10 ms in every 32 ms of speech, hence the process. One utterance at a time; whoever has
two callers takes two processes. Cancelling any of its methods is safe: the next `begin()` starts afresh.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ...pipeline.errors import ServiceError
from ..subprocess.parent import ChildProcess, Sleep, require_package
from ..subprocess.wire import WireMessage
from .jsgf import GrammarError, Word, check_grammar
from .phone_similarity import is_believed, likeness

SAMPLE_RATE = 16_000

CEPSTRAL_MEAN = (46.33, -6.67, 0.57, 4.47, -0.18, -1.99, -2.12, -1.95, -4.05, -0.82, -4.62, 0.11, 1.0)
"""The cepstral mean of people speaking into ordinary microphones, to begin with.

The decoder's own (40, 3, -1, 0, ...) costs words until it has heard some seconds: "go forward ten years" for
"ten meters". Learned from four recordings of the CMU Sphinx test data.
"""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What was heard in one utterance.

    `text` is the grammar's sentence where it is believed (see `likeness.py`), else what the language model heard;
    empty for no speech. `in_grammar` is None without a grammar. `agreement` is how alike (0 to 1) what the grammar
    and what the language model heard is pronounced, None without a grammar; the decoder's own posterior says
    little (1e-4 for right answers). `audio_ms` is what was fed; `decode_ms` the CPU time that it took in the process.
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
        self._child = ChildProcess("PocketSphinx", "voxline.processors.stt.pocketsphinx_child", sleep=sleep)
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


def _judge(answer: WireMessage) -> tuple[str, bool | None, float | None]:
    """The text to believe, whether it is the grammar's, and how alike the two decoders heard."""
    lm_text = answer.text("lm")
    if "grammar" not in answer.header:
        return lm_text, None, None
    ours, theirs = (answer.text(f"{name}_phones").split() for name in ("grammar", "lm"))
    if is_believed(ours, theirs):
        return answer.text("grammar"), True, likeness(ours, theirs)
    return lm_text, False, likeness(ours, theirs) if ours else 0.0


def _explain(error: ServiceError, words: Sequence[Word]) -> Exception:
    _, found, unknown = str(error).partition("unknown words: ")
    if not found:
        return GrammarError(str(error)) if "the grammar" in str(error) else error
    lines = {word.text: word.line for word in words}
    named = ", ".join(f"{word!r} (line {lines[word]})" for word in unknown.split())
    case = " Its words are in lower case." if unknown != unknown.lower() else ""
    return GrammarError(f"the grammar has words that the dictionary does not know: {named}.{case}")
