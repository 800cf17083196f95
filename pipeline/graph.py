"""Pipelines: processors in order, branches side by side, and the next processor for a class of frames.

`Pipeline` nests and `ParallelPipeline` forks; both are only descriptions. `Graph` is the flattened whole: a chain of
nodes, where a question like "who is the next to name TextFrame, downstream of here?" is answered once per class and
place, and then remembered by the kernel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from .errors import FormatError, PipelineError
from .frames import DOWNSTREAM, Direction, Frame, Lane, OutputAudioFrame
from .processor import AudioFormat, FrameProcessor, Part, PartKind


class Pipeline:
    """Processors in order. A pipeline can stand in another one; it is flattened when it runs.

    Raises `PipelineError` for an empty one, for a processor used twice and for two inputs, and `FormatError` where
    neighbours do not agree on the audio between them.
    """

    def __init__(self, processors: Sequence[FrameProcessor | Pipeline | ParallelPipeline], name: str = "") -> None:
        if not isinstance(processors, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise PipelineError(
                f"Pipeline takes a list: write Pipeline([{processors!r}]), not Pipeline({processors!r})."
            )
        self.elements = tuple(processors)
        self.name = name
        if not self.elements:
            raise PipelineError("A pipeline needs at least one processor, as in Pipeline([Louder()]).")
        for element in self.elements:
            _check_element(element, "Pipeline")
        _check_used_once(list(self.processors()))
        check_formats(self.elements_flat())

    def processors(self) -> Iterator[FrameProcessor]:
        """All processors, in order, those of branches and of nested pipelines too."""
        for element in self.elements:
            if isinstance(element, FrameProcessor):
                yield element
            else:
                yield from element.processors()

    def elements_flat(self) -> list[FrameProcessor | ParallelPipeline]:
        """The elements with nested pipelines unfolded; branches stay."""
        flat: list[FrameProcessor | ParallelPipeline] = []
        for element in self.elements:
            if isinstance(element, Pipeline):
                flat.extend(element.elements_flat())
            else:
                flat.append(element)
        return flat

    def __repr__(self) -> str:
        return f"Pipeline([{', '.join(str(element) for element in self.elements)}])"


class ParallelPipeline:
    """Branches side by side: each gets every frame, in order, in the same task.

    A frame that no processor of a branch names passes that branch. The same frame (the very object) leaves once,
    however many branches let it through. An empty branch lets everything through.
    """

    def __init__(self, *branches: Sequence[FrameProcessor | Pipeline | ParallelPipeline], name: str = "") -> None:
        self.name = name
        if not branches:
            raise PipelineError("A ParallelPipeline needs at least one branch, as in ParallelPipeline([a], [b, c]).")
        for branch in branches:
            if isinstance(branch, FrameProcessor | Pipeline | ParallelPipeline):
                raise PipelineError(
                    f"A branch of a ParallelPipeline is a list: write ParallelPipeline([{branch}]), not "
                    f"ParallelPipeline({branch})."
                )
            for element in branch:
                _check_element(element, "ParallelPipeline")
        self.branches = tuple(tuple(branch) for branch in branches)
        _check_used_once(list(self.processors()))

    def processors(self) -> Iterator[FrameProcessor]:
        """All processors, branch by branch."""
        for branch in self.branches:
            if branch:
                for element in branch:
                    if isinstance(element, FrameProcessor):
                        yield element
                    else:
                        yield from element.processors()

    def __repr__(self) -> str:
        return f"ParallelPipeline({', '.join(str(list(branch)) for branch in self.branches)})"


def _check_element(element: object, where: str) -> None:
    if not isinstance(element, FrameProcessor | Pipeline | ParallelPipeline):
        hint = ", an instance, not the class: add ()" if isinstance(element, type) else ""
        raise PipelineError(
            f"{where}: {element!r} is no processor. Give processors, pipelines or parallel pipelines{hint}."
        )


def _check_used_once(processors: list[FrameProcessor]) -> None:
    # By identity: two processors that are dataclasses may well compare equal.
    counts = Counter(map(id, processors))
    for processor in processors:
        if (count := counts[id(processor)]) > 1:
            raise PipelineError(
                f"{processor.path} stands in the pipeline {count} times. A processor has a state and one place: "
                f"make a second {type(processor).__name__}(...)."
            )
    inputs = [
        processor for processor in processors if any(part.kind is PartKind.SOURCE for part in processor._parts)
        and getattr(processor, "is_transport_input", False)
    ]  # fmt: skip
    if len(inputs) > 1:
        raise PipelineError(
            f"The pipeline has {len(inputs)} inputs ({', '.join(p.path for p in inputs)}) and a conversation has one. "
            "Run two pipelines with PipelineRunner().run(worker_a, worker_b), or mix the audio before it comes in."
        )


# --- the flattened whole ---------------------------------------------------------------------------------------------


class GraphNode:
    """A place in the flattened pipeline, with its neighbours."""

    __slots__ = ("down", "path", "up")

    def __init__(self, path: str) -> None:
        self.path = path
        self.up: GraphNode | None = None
        self.down: GraphNode | None = None

    def beside(self, direction: Direction) -> GraphNode | None:
        """The neighbour in a direction."""
        return self.down if direction is DOWNSTREAM else self.up


class PipelineEnd(GraphNode):
    """The head (upstream) or the tail (downstream) of the whole pipeline."""

    __slots__ = ()


class Fork(GraphNode):
    """The place of branches that stand side by side."""

    __slots__ = ("branches",)

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.branches: list[tuple[Edge, Edge]] = []


class Edge(GraphNode):
    """The beginning or the end of a branch: beyond it, the branches of its fork are joined."""

    __slots__ = ("fork",)

    def __init__(self, fork: Fork) -> None:
        super().__init__(fork.path)
        self.fork = fork


class Interest:
    """The frames that a class of processors names. Computed once per class: a thousand conversations share it."""

    __slots__ = ("job_lanes", "sources", "streams", "taken")

    def __init__(self, parts: tuple[Part, ...]) -> None:
        self.taken: dict[Direction, dict[type[Frame], Part]] = {}
        self.job_lanes: set[tuple[Direction, Lane]] = set()
        self.streams = [part for part in parts if part.kind is PartKind.STREAM]
        self.sources = [part for part in parts if part.kind is PartKind.SOURCE]
        for part in parts:
            if part.kind in (PartKind.PLAIN, PartKind.JOB):
                table = self.taken.setdefault(part.direction, {})
                for declared in part.types:
                    table.setdefault(declared, part)
                    if part.kind is PartKind.JOB:
                        self.job_lanes.add((part.direction, declared.lane))


@cache
def _interest(cls: type[FrameProcessor]) -> Interest:
    return Interest(cls._parts)


class ProcessorNode(GraphNode):
    """A processor at its place, and the frames that it names."""

    __slots__ = ("_interest", "processor")

    def __init__(self, path: str, processor: FrameProcessor) -> None:
        super().__init__(path)
        self.processor = processor
        self._interest = _interest(type(processor))

    @property
    def sources(self) -> list[Part]:
        """The processor's sources."""
        return self._interest.sources

    def taker(self, frame_type: type[Frame], direction: Direction) -> Part | None:
        """Return the method that handles a class of frames; the nearest base that is named counts."""
        table = self._interest.taken.get(direction)
        if table is None:
            return None
        for base in frame_type.__mro__:
            if base in table:
                return table[base]
        return None

    def cancel_taker(self, frame_type: type[Frame]) -> Part | None:
        """Return the method that handles a cancel frame, declared for either direction."""
        return self.taker(frame_type, DOWNSTREAM) or self.taker(frame_type, Direction.UPSTREAM)

    def readers(self, frame_type: type[Frame], direction: Direction) -> list[Part]:
        """Return the streams that read along."""
        return [
            part
            for part in self._interest.streams
            if part.direction is direction and issubclass(frame_type, part.types)
        ]

    def keeps_order(self, frame_type: type[Frame], direction: Direction) -> bool:
        """Decide whether frames of this class wait while a job of this processor runs.

        Frames after a sentence must not overtake its audio, also where the processor does not name them.
        """
        return (direction, frame_type.lane) in self._interest.job_lanes

    def names(self, frame_type: type[Frame], direction: Direction) -> bool:
        """Decide whether a frame of this class stops at the processor."""
        return (
            self.keeps_order(frame_type, direction)
            or self.taker(frame_type, direction) is not None
            or bool(self._interest.streams and self.readers(frame_type, direction))
        )


class Graph:
    """A pipeline, flattened into nodes from `head` to `tail`."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.head = PipelineEnd("(head)")
        self.tail = PipelineEnd("(tail)")
        self.nodes: list[ProcessorNode] = []
        self._names: Counter[str] = Counter()
        last = self._chain(pipeline.elements, pipeline.name, self.head)
        _link(last, self.tail)

    def _chain(
        self, elements: Sequence[FrameProcessor | Pipeline | ParallelPipeline], prefix: str, last: GraphNode
    ) -> GraphNode:
        for element in elements:
            if isinstance(element, FrameProcessor):
                node: GraphNode = ProcessorNode(self._path(prefix, element.name or type(element).__name__), element)
                self.nodes.append(node)  # type: ignore[arg-type]
            elif isinstance(element, Pipeline):
                last = self._chain(element.elements, _join_path(prefix, element.name), last)
                continue
            else:
                node = self._fork(element, prefix)
            _link(last, node)
            last = node
        return last

    def _fork(self, parallel: ParallelPipeline, prefix: str) -> Fork:
        fork = Fork(self._path(prefix, parallel.name or "parallel"))
        for number, branch in enumerate(parallel.branches, 1):
            first, end = Edge(fork), Edge(fork)
            _link(self._chain(branch, f"{fork.path}.{number}", first), end)
            fork.branches.append((first, end))
        return fork

    def _path(self, prefix: str, name: str) -> str:
        path = _join_path(prefix, name)
        self._names[path] += 1
        return path if self._names[path] == 1 else f"{path}#{self._names[path]}"

    def targets(self, node: GraphNode, frame_type: type[Frame], direction: Direction) -> list[GraphNode]:
        """Return the next places of a frame that leaves ``node``: processors, forks (to join there), or the end."""
        beside = node.beside(direction)
        return _targets(beside, frame_type, direction)


def entered(node: GraphNode | None, frame_type: type[Frame], direction: Direction) -> list[Fork]:
    """Return the forks, nested ones too, whose branches a frame of this class enters next, from ``node`` on."""
    while node is not None and not isinstance(node, PipelineEnd | Edge):
        if isinstance(node, ProcessorNode):
            if node.names(frame_type, direction):
                return []
        elif isinstance(node, Fork):
            starts = [(first if direction is DOWNSTREAM else end).beside(direction) for first, end in node.branches]
            if any(_targets(start, frame_type, direction) != [node] for start in starts):
                return [node, *(fork for start in starts for fork in entered(start, frame_type, direction))]
        node = node.beside(direction)
    return []


def _targets(node: GraphNode | None, frame_type: type[Frame], direction: Direction) -> list[GraphNode]:
    while node is not None:
        if isinstance(node, ProcessorNode):
            if node.names(frame_type, direction):
                return [node]
        elif isinstance(node, Edge):
            return [node.fork]
        elif isinstance(node, Fork):
            fork = node
            found = [
                _targets((first if direction is DOWNSTREAM else end).beside(direction), frame_type, direction)
                for first, end in fork.branches
            ]
            named = [targets for targets in found if targets != [fork]]
            if named:
                # In the order of the branches; the join once, where the first branch lets the frame through.
                return list(dict.fromkeys(target for targets in found for target in targets))
        else:
            return [node]
        node = node.beside(direction)
    raise AssertionError("a chain of nodes ends at its ends")  # pragma: no cover


def _link(upper: GraphNode, lower: GraphNode) -> None:
    upper.down = lower
    lower.up = upper


def _join_path(prefix: str, name: str) -> str:
    return "/".join(filter(None, [prefix, name]))


def check_formats(elements: Sequence[Any]) -> None:
    """Raise `FormatError` where the audio between two processors does not fit.

    Branches of a parallel pipeline are checked one by one, each with the formats from before the fork. A pipeline
    without an input of its own may be a part of another one, so its incoming format is unknown, and not checked.
    """
    walk = _Walk()
    walk.along(elements)
    walk.judge_end()


class _Walk:
    def __init__(self) -> None:
        self.known: dict[type[Frame], list[tuple[FrameProcessor, AudioFormat]]] = {}
        """Possible makers of the frames of a class at this place; several after branches."""
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
        """Check each branch from the formats before the fork; beyond it, the formats of all branches are possible."""
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
        self.closed_head = self.closed_head or any(part.kind is PartKind.SOURCE for part in processor._parts)

    def judge_end(self) -> None:
        if self.closed_head and self.unheard is not None:
            raise FormatError(
                f"{self.unheard.path} makes audio and nothing after it takes any: the pipeline has no sink. "
                "PipelineEnd it with transport.output()."
            )
