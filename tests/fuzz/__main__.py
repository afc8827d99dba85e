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
from typing import Any

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
    parser.add_argument("--add", action="store_true", help="to what the figures have of the target, of another sitting")
    asked = parser.parse_args()
    # What the product warns of would bury what is found.
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    record = {"command": " ".join(["python", "-m", "tests.fuzz", *sys.argv[1:]])} | provenance()
    there = (asked.target or asked.add) and asked.out.exists()
    before = json.loads(asked.out.read_text()) if there else {"targets": {}, "crashes": []}
    entries, crashes = dict(before["targets"]), list(before["crashes"])
    for name in asked.target or NAMES:
        tally = fuzz(load(name), asked.seconds, ROOT / "build/fuzz", partial(print, flush=True))
        print(f"{name}: {tally.inputs} inputs in {tally.seconds:.0f} s, {len(tally.crashes)} crashes", flush=True)
        now = {"inputs": tally.inputs, "crashes": len(tally.crashes), "seconds": round(tally.seconds)}
        if asked.add and name in entries:
            now = {count: value + entries[name][count] for count, value in now.items()}
        else:
            crashes = [crash for crash in crashes if crash["target"] != name]
        # Of some targets alone, the others' entries stay as they were: each says where and of which commit it is.
        entries[name] = now | {"commit": record["commit"], "machine": record["machine"]}
        crashes += [asdict(crash) for crash in tally.crashes]
        written = {"seconds": asked.seconds, "targets": {key: entries[key] for key in NAMES if key in entries}}
        _write(asked.out, record | written | {"crashes": crashes})
    sys.exit(any(entries[name]["crashes"] for name in asked.target or NAMES))


def _write(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
