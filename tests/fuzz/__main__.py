"""``python -m tests.fuzz --seconds 600``: each target for so long, one after the other, told in ``fuzz.json``."""

import argparse
import json
import logging
import os
import sys
import warnings
from dataclasses import asdict
from functools import partial
from pathlib import Path

# Read by the libraries when they are imported: no mutated name is looked for on a hub.
os.environ |= {"HF_HUB_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0"}

from deploy.records.provenance import provenance
from tests.fuzz.fuzzing import ROOT, fuzz
from tests.fuzz.targets import NAMES, load

RESULTS = ROOT / "benchmarks/results/fuzz.json"


def main() -> None:
    """Fuzz, write the figures, and exit with 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="a target")
    parser.add_argument("--target", choices=NAMES, action="append", help="instead of all of them; repeatable")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the figures go")
    asked = parser.parse_args()
    # What the product warns of would bury what is found.
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    record = {"command": " ".join(["python", "-m", "tests.fuzz", *sys.argv[1:]])} | provenance()
    before = (
        json.loads(asked.out.read_text()) if asked.target and asked.out.exists() else {"targets": {}, "crashes": []}
    )
    tallies = {}
    for name in asked.target or NAMES:
        tally = tallies[name] = fuzz(load(name), asked.seconds, ROOT / "build/fuzz", partial(print, flush=True))
        print(f"{name}: {tally.inputs} inputs in {tally.seconds:.0f} s, {len(tally.crashes)} crashes", flush=True)
    tried = {
        name: {
            "inputs": tally.inputs,
            "crashes": len(tally.crashes),
            "seconds": round(tally.seconds),
            "commit": record["commit"],
        }
        for name, tally in tallies.items()
    }
    kept = [crash for crash in before["crashes"] if crash["target"] not in tried]
    record |= {
        "seconds": asked.seconds,
        # Of some targets alone, the others' entries stay as they were, each with its own commit.
        "targets": {name: entry for name, entry in (before["targets"] | tried).items() if name in NAMES},
        "crashes": [*kept, *(asdict(crash) for tally in tallies.values() for crash in tally.crashes)],
    }
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(record, indent=2) + "\n")
    sys.exit(any(tally.crashes for tally in tallies.values()))


if __name__ == "__main__":
    main()
