"""The options that all fuzzers have."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import command_lines
from outcomes import FINDING
from running import Make, reproduce, run


def main(about: str | None, make: Make, prepare: Callable[[], None]) -> None:
    """Run a fuzzer as its command line says; exit with 1 if there are findings."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1_000, help="inputs of the whole run")
    parser.add_argument("--start", type=int, default=0, help="the first input, to go on with a run")
    parser.add_argument("--jobs", type=int, default=1, help="workers at once")
    parser.add_argument("--keep", type=Path, help="a folder for the files of findings")
    parser.add_argument("--progress", type=int, default=5_000, help="inputs between two lines of progress")
    parser.add_argument("--show", type=int, metavar="I", help="run input I alone, in this process")
    parser.add_argument("--quick", action="store_true", help="start at once, with fewer and other inputs")
    given = parser.parse_args()
    command_lines.quick = given.quick
    prepare()
    if given.show is not None:
        folder = Path(tempfile.gettempdir()) / f"fuzz-{given.seed}-{given.show}"
        outcome = reproduce(make, given.seed, given.show, folder)
        print(f"{outcome.kind} {outcome.reason}\n{outcome.text}\nfiles: {folder}")
        sys.exit(outcome.kind == FINDING)
    tally = run(
        make,
        seed=given.seed,
        count=given.count,
        start=given.start,
        jobs=given.jobs,
        keep=given.keep,
        progress=given.progress,
    )
    for reason, number in sorted(tally.reasons().items(), key=lambda item: -item[1]):
        print(f"{number:6,} x {reason}")
    sys.exit(bool(tally.findings))
