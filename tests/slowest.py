"""The ten slowest tests of several suites, from their JUnit files: ``python -m tests.slowest build/junit/*.xml``."""

import sys
from pathlib import Path
from xml.etree import ElementTree

SHOWN = 10


def main(paths: list[Path]) -> None:
    """Print them, and how long each suite took."""
    suites = {path.stem: ElementTree.parse(path).getroot()[0] for path in paths}
    for name, suite in suites.items():
        print(f"{name}: {suite.get('tests')} tests in {float(suite.get('time', 0)):.0f} s")
    cases = [case for suite in suites.values() for case in suite.iter("testcase")]
    print(f"the {SHOWN} slowest tests, set-up included:")
    for case in sorted(cases, key=lambda case: -float(case.get("time", 0)))[:SHOWN]:
        print(f"{float(case.get('time', 0)):7.1f} s  {case.get('classname')}::{case.get('name')}")


if __name__ == "__main__":
    main([Path(path) for path in sys.argv[1:]])
