"""One measured process: `python benchmarks/side.py SIDE CONFIG SCENARIO '{"parameter": value}' [CORE]`.

It runs in the environment of the side that it measures, keeps to one core, and prints one JSON line.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import traceback
from typing import Any

import capacity
import measure
import scenarios

SCENARIOS = {
    "burst": scenarios.burst,
    "single": scenarios.single,
    "idle": scenarios.idle,
    "interruption": scenarios.interruption,
    "capacity": capacity.capacity,
}
OURS_ALONE = {
    **dict.fromkeys(("interruptions", "starts", "hour", "voice"), "endurance"),
    **dict.fromkeys(("conversations", "day", "guesses", "silence"), "sessions"),
    **dict.fromkeys(("first_audio", "share", "held"), "services"),
}
"""Where the scenarios are that import voxline."""

# A scenario that takes longer has lost a frame, and waits for it; who runs this knows which are long.
TIMEOUT_S = 840.0


async def run(name: str, config: str, scenario: str, parameters: dict[str, Any]) -> None:
    side = importlib.import_module(f"sides.{name}").side(config)
    await side.open()
    failed = 1
    try:
        home = OURS_ALONE.get(scenario)
        call = SCENARIOS[scenario] if home is None else getattr(importlib.import_module(home), scenario)
        numbers = await asyncio.wait_for(call(side, **parameters), TIMEOUT_S)
        measure.emit(side=name, config=config, scenario=scenario, version=side.version, **numbers)
        failed = 0
    except Exception:
        traceback.print_exc()
    finally:
        # Hundreds of conversations may still be open; ending them one by one is not what is measured.
        sys.stderr.flush()
        os._exit(failed)


def main() -> None:
    name, config, scenario, parameters = sys.argv[1:5]
    measure.pin(int(sys.argv[5]) if len(sys.argv) > 5 else None)
    asyncio.run(run(name, config, scenario, json.loads(parameters)))


if __name__ == "__main__":
    main()
