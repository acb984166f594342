"""Print the rows of floors as they are now, as JSON; run without TRITON_INTERPRET. Argument: "cheap" or "all"."""

import json
import sys
from dataclasses import asdict

from benchmarks.floors import __main__ as floors
from benchmarks.floors.devices import DEVICES

SHAPE = (1024, 512, 4, 4)


def recorded() -> dict[str, object]:
    """What every op launches on one shape, nothing compiled: kernels with tile, programs, bytes; torch's operators."""
    ops = list(floors.recorded_ops(SHAPE, "channels_last"))
    return {
        "launches": [
            [case, mode, launch.name, launch.tile, launch.programs, launch.bytes_moved]
            for case, mode, one in ops
            for launch in one.kernels
        ],
        "operators": {f"{case} {mode}": one.operators for case, mode, one in ops},
    }


if __name__ == "__main__":
    if sys.argv[1] == "cheap":
        one = floors.floor_rows({"channels_last": [SHAPE]}, ["channel_gate"], [DEVICES[-1], DEVICES[-2]])
        print(json.dumps({**recorded(), "rows": [asdict(row) for row in one]}))
    else:
        rows = [asdict(row) for row in floors.floor_rows()]
        print(json.dumps({"rows": rows, "blocks": [asdict(row) for row in floors.launch_rows()]}))
