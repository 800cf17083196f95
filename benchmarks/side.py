"""One measured process: `python benchmarks/side.py SIDE CONFIG SCENARIO '{"parameter": value}' [CORE]`.

It runs in the environment of the side that it measures, keeps to one core, and prints one JSON line.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
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


async def run(name: str, config: str, scenario: str, parameters: dict[str, Any]) -> None:
    side = importlib.import_module(f"sides.{name}").side(config)
    await side.open()
    numbers = await SCENARIOS[scenario](side, **parameters)
    measure.emit(side=name, config=config, scenario=scenario, version=side.version, **numbers)
    os._exit(0)  # hundreds of conversations are still open; ending them one by one is not what is measured


def main() -> None:
    name, config, scenario, parameters = sys.argv[1:5]
    measure.pin(int(sys.argv[5]) if len(sys.argv) > 5 else None)
    asyncio.run(run(name, config, scenario, json.loads(parameters)))


if __name__ == "__main__":
    main()
