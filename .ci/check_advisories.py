"""Looks for known weaknesses in the pinned versions, where the advisories are in reach.

They come from https://osv.dev.
"""

import json
import subprocess
import sys
from pathlib import Path

CONSTRAINTS = Path(__file__).parent.parent / "constraints.txt"
PATIENCE = "10"
"""Seconds for one answer."""


def main() -> None:
    command = [sys.executable, "-m", "pip_audit", "--format", "json"]
    command += ["--vulnerability-service", "osv", "--timeout", PATIENCE]
    command += ["--requirement", str(CONSTRAINTS), "--no-deps", "--disable-pip"]
    ended = subprocess.run(
        [*command, "--progress-spinner", "off"],
        check=False,
        capture_output=True,
        text=True,
    )
    try:
        audited = json.loads(ended.stdout)["dependencies"]
    except ValueError:
        why = (ended.stderr.strip().splitlines() or ["pip-audit says nothing"])[-1]
        print(f"NOT CHECKED: advisories about the pinned versions.\n{why}")
        return
    weak = [
        f"{package['name']} {package['version']}: {advisory['id']}, mended in "
        f"{', '.join(advisory['fix_versions']) or 'no version yet'}"
        for package in audited
        for advisory in package.get("vulns", ())
    ]
    if weak:
        sys.exit("\n".join(weak))


if __name__ == "__main__":
    main()
