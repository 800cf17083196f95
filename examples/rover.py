"""A rover that is driven by voice, offline.

    python examples/rover.py --input my.wav --output talk.wav
    voxline run examples/rover.py --transport file --input my.wav --output talk.wav

Say "go forward ten meters", "turn left", "where are you", "stop", "what can you do" or "good bye". Whatever
else is said moves nothing.
"""

import json
import sys

from voxline.pipeline import (
    ClientConnectedFrame,
    Frame,
    FrameProcessor,
    Pipeline,
    ResponseEndFrame,
    ServerMessageFrame,
    handles,
)
from voxline.processors import EspeakTTS, PocketSphinxSTT, RuleResponder, SessionController, SileroVAD
from voxline.transports.base import Transport

GRAMMAR = """#JSGF V1.0;
grammar rover;

public <command> = <move> | <turn> | <question> | stop | good bye;

<move> = go (forward | back | backward | backwards) (one meter | <many> meters);
<turn> = turn (left | right | around);
<question> = where are you | what can you do;

<many> = <few> | <teen> | <tens> [one | <few>] | [one | a] hundred;
<few> = two | three | four | five | six | seven | eight | nine;
<teen> = ten | eleven | twelve | thirteen | fourteen | fifteen | sixteen | seventeen | eighteen | nineteen;
<tens> = twenty | thirty | forty | fifty | sixty | seventy | eighty | ninety;
"""

# fmt: off
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
           "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
TENS = ("zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
# fmt: on

COMPASS = ("north", "east", "south", "west")
STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))
"""East and north of one metre, for each heading."""
TURNS = {"left": -1, "right": 1, "around": 2}


class Rover:
    """Where it stands, where it looks, and where it has been. Metres, east and north of its start."""

    def __init__(self) -> None:
        self.position: tuple[int, int] = (0, 0)
        self.heading = 0
        self.path: list[tuple[int, int]] = [self.position]

    def reply(self, words: str) -> str:
        """Do what the words say, and tell about it. What is no command moves nothing."""
        match words.split():
            case ["go", "forward", *number, "meter" | "meters"] if meters := to_number(number):
                return self.go(meters, "forward")
            case ["go", "back" | "backward" | "backwards", *number, "meter" | "meters"] if meters := to_number(number):
                return self.go(-meters, "back")
            case ["turn", ("left" | "right" | "around") as way]:
                self.heading = (self.heading + TURNS[way]) % 4
                return f"Turning {way}. I am facing {COMPASS[self.heading]}."
            case ["where", "are", "you"]:
                return f"I am {self.place()}, facing {COMPASS[self.heading]}."
            case ["stop"]:
                return f"Stopped. I am {self.place()}."
            case ["what", "can", "you", "do"]:
                return "I go forward or back some meters, turn left, right or around, and tell you where I am."
            case ["good", "bye"]:
                return "Good bye."
            case _:
                return "Sorry, I did not get that. Say go, turn or stop."

    def go(self, meters: int, way: str) -> str:
        """Move, backwards where ``meters`` is negative."""
        east, north = STEPS[self.heading]
        self.position = (self.position[0] + meters * east, self.position[1] + meters * north)
        self.path.append(self.position)
        return f"Going {way} {plural(abs(meters))}. I am now {self.place()}."

    def place(self) -> str:
        """Its position, in words."""
        east, north = self.position
        parts = [
            f"{plural(abs(north))} {'north' if north > 0 else 'south'}" if north else "",
            f"{plural(abs(east))} {'east' if east > 0 else 'west'}" if east else "",
        ]
        away = " and ".join(filter(None, parts))
        return away or "where I started"


class Chart(FrameProcessor):
    """Tells the program of the user where the rover is, for its map: when that connects, and after each answer."""

    def __init__(self, rover: Rover) -> None:
        self.rover = rover

    @handles(ClientConnectedFrame, ResponseEndFrame)
    async def tell(self, frame: Frame) -> None:
        """The last 200 stops of its way, and how it stands now."""
        await self.push(frame)
        rover = self.rover
        chart = {"position": rover.position, "heading": COMPASS[rover.heading], "path": rover.path[-200:]}
        await self.push(ServerMessageFrame(json.dumps({"type": "rover", **chart})))


def to_number(words: list[str]) -> int:
    """Return the number that words such as "twenty", "five" mean; 0 for other words."""
    match words:
        case ["hundred"] | ["one" | "a", "hundred"]:
            return 100
        case [word] if word in NUMBERS:
            return NUMBERS.index(word)
        case [ten] if ten in TENS:
            return 10 * TENS.index(ten)
        case [ten, one] if ten in TENS[2:] and one in NUMBERS[1:10]:
            return 10 * TENS.index(ten) + NUMBERS.index(one)
        case _:
            return 0


def plural(meters: int) -> str:
    """Metres, in words that are spoken well."""
    return "1 meter" if meters == 1 else f"{meters} meters"


def make_pipeline(transport: Transport, rover: Rover | None = None) -> Pipeline:
    """The bot: `voxline run` and `voxline demo` look for this."""
    rover = rover or Rover()
    return Pipeline(
        [
            transport.input(),
            SileroVAD(),
            PocketSphinxSTT(GRAMMAR),
            SessionController(farewells=["good bye"], answer_unclear=True),
            RuleResponder(rover.reply),
            Chart(rover),
            EspeakTTS(),
            transport.output(),
        ]
    )


if __name__ == "__main__":
    from voxline.cli import main

    raise SystemExit(main(["run", __file__, *sys.argv[1:]]))
