#!/usr/bin/env python3
"""Pictures of points on their way along every field, and a table of how near to the data they come."""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
WORK = ROOT / "target" / "fields"
DOCS = ROOT / "docs" / "fields"
HELP = """\
Runs `cudrift flow` along each field from a normal distribution to the checkerboard. The pictures go to docs/fields, and
the table into the README.md there, between its markers. Nothing is installed."""
# Fields whose size falls with the distance go by steps of one length; the others by a fifth of themselves.
EVEN = ["--normalize", "--step", "0.02"]
FIELDS = {
    "drift": ["--bandwidth", "0.1"],
    "mean-shift": ["--field", "mean-shift", "--kernel", "gaussian", "--bandwidth", "0.2"],
    "score": ["--field", "score", "--kernel", "gaussian", "--bandwidth", "0.2", *EVEN],
    "sharp": ["--field", "sharp", "--kernel", "laplace", "--bandwidth", "0.2", *EVEN],
    "mmd": ["--field", "mmd", "--kernel", "gaussian", "--bandwidth", "0.2", *EVEN],
    "coulomb": ["--field", "coulomb", "--bandwidth", "0.1", *EVEN],
    "forward-kl": ["--field", "forward-kl", "--kernel", "gaussian", "--bandwidth", "0.2", *EVEN],
    "chi-squared": ["--field", "chi-squared", "--kernel", "gaussian", "--bandwidth", "0.2", *EVEN],
    "sliced": ["--field", "sliced"],
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    if subprocess.run(["cargo", "build", "--release", "-p", "cudrift-cli"], cwd=ROOT).returncode != 0:
        raise SystemExit("cargo build failed for the reason above")
    cudrift = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / "cudrift"
    for folder in (WORK, DOCS):
        folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, flags in FIELDS.items():
        out = WORK / name
        words = [cudrift, "flow", "--data", "checkerboard", "--backend", "cpu", "--out", out, *flags]
        if subprocess.run(words, stdout=subprocess.DEVNULL).returncode != 0:
            raise SystemExit(f"cudrift flow failed for {name}, for the reason above")
        shutil.copyfile(out / "frames.png", DOCS / f"{name}.png")
        swd = [json.loads(line)["swd1"] for line in (out / "flow.jsonl").read_text().splitlines()]
        rows.append(f"| [{name}]({name}.png) | `{' '.join(flags)}` | {swd[len(swd) // 4]:.3f} | {swd[-1]:.3f} |")
        print(f"{name}: SWD {swd[0]:.3f} to {swd[-1]:.3f}", file=sys.stderr, flush=True)
    table = ["| field | flags | SWD after 50 steps | after 200 |", "|---|---|---|---|", *rows]
    page = DOCS / "README.md"
    begin, end = "<!-- gallery begins -->", "<!-- gallery ends -->"
    head, rest = page.read_text().split(begin)
    page.write_text(head + begin + "\n" + "\n".join(table) + "\n" + end + rest.split(end)[1])
    print(f"{page.relative_to(ROOT)} is written", file=sys.stderr)


if __name__ == "__main__":
    main()
