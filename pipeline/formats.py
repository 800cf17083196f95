"""Formats meet when a pipeline is built: what one processor makes, the next must take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .errors import FormatError
from .frames import Frame, OutputAudioFrame
from .processor import AudioFormat, FrameProcessor, Kind


def check_formats(elements: Sequence[Any]) -> None:
    """Raise `FormatError` where the audio between two processors does not fit.

    Branches of a parallel pipeline are looked at one by one, each with what comes before the fork. A pipeline that
    has no input of its own may be a part of another one, so what comes into it is not known, and not judged.
    """
    walk = _Walk()
    walk.along(elements)
    walk.judge_end()


class _Walk:
    def __init__(self) -> None:
        self.known: dict[type[Frame], list[tuple[FrameProcessor, AudioFormat]]] = {}
        """Who may have made the frames of a class that come by here; several after branches."""
        self.seen: list[FrameProcessor] = []
        self.closed_head = False
        self.unheard: FrameProcessor | None = None

    def along(self, elements: Sequence[Any]) -> None:
        for element in elements:
            if isinstance(element, FrameProcessor):
                self.visit(element)
            elif hasattr(element, "branches"):
                self.fork(element.branches)
            else:
                self.along(element.elements)

    def fork(self, branches: Sequence[Sequence[Any]]) -> None:
        """Each branch begins with what is known before the fork; beyond it, what any of them makes may come by."""
        known, unheard = self.known, self.unheard
        after: dict[type[Frame], list[tuple[FrameProcessor, AudioFormat]]] = {}
        left: list[FrameProcessor | None] = []
        for branch in branches:
            self.known, self.unheard = dict(known), unheard
            self.along(branch)
            for frame_type, makers in self.known.items():
                one = after.setdefault(frame_type, [])
                one += [maker for maker in makers if maker not in one]
            left.append(self.unheard)
        heard = unheard is not None and None in left
        self.known = after
        self.unheard = next((maker for maker in left if maker is not None and not (heard and maker is unheard)), None)

    def visit(self, processor: FrameProcessor) -> None:
        for frame_type, wanted in processor.accepts().items():
            if frame_type in self.known:
                for maker, made in self.known[frame_type]:
                    if not wanted.takes(made):
                        rate = wanted.sample_rates[0] if wanted.sample_rates else ""
                        raise FormatError(
                            f"{maker.path} -> {processor.path}: {maker.path} makes {frame_type.__name__} with {made}, "
                            f"and {processor.path} takes {wanted}. Put a Resampler({rate}) between them."
                        )
            elif self.closed_head and issubclass(frame_type, OutputAudioFrame):
                raise FormatError(
                    f"{self.seen[-1].path} -> {processor.path}: {processor.path} expects audio and nothing before it "
                    "makes any. Put a TTS between them (or, if there is one, let its makes() say so)."
                )
            if issubclass(frame_type, OutputAudioFrame):
                self.unheard = None
        for frame_type, made in processor.makes().items():
            if self.closed_head and frame_type not in self.known and getattr(processor, "converts_audio", False):
                continue
            self.known[frame_type] = [(processor, made)]
            if issubclass(frame_type, OutputAudioFrame):
                self.unheard = processor
        self.seen.append(processor)
        self.closed_head = self.closed_head or any(part.kind is Kind.SOURCE for part in processor._parts)

    def judge_end(self) -> None:
        if self.closed_head and self.unheard is not None:
            raise FormatError(
                f"{self.unheard.path} makes audio and nothing after it takes any: the pipeline has no sink. "
                "End it with transport.output()."
            )
