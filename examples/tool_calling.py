"""A bot that calls tools: it switches the lights of a house.

    python examples/tool_calling.py                                    # somebody types, and time is virtual
    voxline run examples/tool_calling.py --transport webrtc            # talk to it in a browser, or type
    voxline run examples/tool_calling.py --input me.wav --output talk.wav

It runs offline as it stands, so its "model" is thirty lines that know three sentences. A language model does the same
with the same tools: put `OpenAILLM("gpt-4.1-mini", tools=house.tools)` in its place. Needs the extra `speech`.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence

from voxline.pipeline import Message, Pipeline, PipelineWorker, ToolCall, VirtualClock
from voxline.processors import EspeakTTS, PocketSphinxSTT, ToolError, conversation
from voxline.processors.llm.base import LLM, Piece, ToolSpec
from voxline.transports.base import Transport
from voxline.transports.memory import MemoryTransport

GRAMMAR = """#JSGF V1.0;
grammar lights;

public <wish> = switch (on | off) the <room> light | which lights are on | good bye;
<room> = kitchen | hall | garden;
"""


class House:
    """The house that the tools switch."""

    def __init__(self) -> None:
        self.lights = {"kitchen": False, "hall": False, "garden": True}

    async def switch(self, room: str, on: bool) -> str:
        """Switches a light on or off.

        Args:
            room: kitchen, hall or garden.
            on: Whether it is to shine.
        """
        if room not in self.lights:
            raise ToolError(f"There is no light in the {room}. There is one in the {', the '.join(self.lights)}.")
        self.lights[room] = on
        return f"The {room} light is {'on' if on else 'off'}."

    async def shining(self) -> str:
        """Tells which lights are on."""
        rooms = [room for room, on in self.lights.items() if on]
        return f"There is light in the {' and the '.join(rooms)}." if rooms else "It is dark everywhere."

    @property
    def tools(self):
        """For a model."""
        return [self.switch, self.shining]


class Butler(LLM):
    """Stands where a language model would: wants a tool for what it understands, and says what came of it."""

    async def complete(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> AsyncGenerator[Piece]:
        """The answer to a conversation: text, or a tool that is wanted. With its result, this is asked again."""
        newest = messages[-1]
        if newest.role == "tool":
            yield newest.text
            return
        match newest.text.lower().strip(".!?").split():
            case ["switch", ("on" | "off") as how, "the", room, "light"]:
                yield ToolCall("call-1", "switch", json.dumps({"room": room, "on": how == "on"}))
            case ["which", "lights", "are", "on"]:
                yield ToolCall("call-1", "shining")
            case ["good", "bye"]:
                yield "Good bye."
            case _:
                yield "I can switch a light on or off, and tell you which are on."


def make_pipeline(transport: Transport, house: House | None = None) -> Pipeline:
    """The bot: `voxline run` looks for this."""
    return conversation(
        transport,
        llm=Butler(tools=(house or House()).tools),
        stt=PocketSphinxSTT(GRAMMAR),
        tts=EspeakTTS(),
        farewells=["good bye"],
    )


async def main() -> None:
    """Type to it, and print what both sides said."""
    talk = conversation(
        MemoryTransport(), llm=Butler(tools=House().tools), tts=EspeakTTS(), stt=PocketSphinxSTT(GRAMMAR)
    )
    running = asyncio.ensure_future(PipelineWorker(talk, clock=VirtualClock()).run())  # noqa: TID251
    for text in ("which lights are on", "switch on the kitchen light", "switch on the attic light", "sing"):
        await talk.session.send_message(text)
    talk.session.close()
    await running
    for message in talk.session.history:
        wanted = ", ".join(f"{call.name}({call.arguments})" for call in message.calls)
        print(f"{message.role:>9}: {message.text or wanted}")


if __name__ == "__main__":
    asyncio.run(main())
