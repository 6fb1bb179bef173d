"""Write the outcome of the run as JSON, beside what pytest prints."""

import json
import os
from collections import Counter
from pathlib import Path

import transformers


def pytest_terminal_summary(terminalreporter):
    outcomes = {kind: terminalreporter.stats.get(kind, []) for kind in ("passed", "failed", "error", "skipped")}
    report = {
        "transformers": transformers.__version__,
        "counts": {kind: len(reports) for kind, reports in outcomes.items()},
        "failures": {one.nodeid: one.longreprtext for one in outcomes["failed"] + outcomes["error"]},
        "skips": dict(Counter(one.longrepr[2] for one in outcomes["skipped"]).most_common()),
    }
    path = Path(os.environ["CONFORMANCE_REPORT"])
    path.write_text(json.dumps(report, indent=1), encoding="utf-8")
    terminalreporter.write_line(f"Report: {path}")
