"""Time to import modules in a fresh process, beyond numpy's own: `python imports.py CORE MODULE...`."""

from __future__ import annotations

import importlib
import sys
import time

import measure

importlib.import_module("numpy")  # its time is nobody's here
measure.pin(int(sys.argv[1]) if sys.argv[1] != "-" else None)
began = time.perf_counter_ns()
cpu = time.process_time_ns()
for name in sys.argv[2:]:
    importlib.import_module(name)
measure.emit(
    import_ms=(time.perf_counter_ns() - began) / 1e6,
    cpu_ms=(time.process_time_ns() - cpu) / 1e6,
    modules=len(sys.modules),
)
