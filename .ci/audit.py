"""Known vulnerabilities of what is installed, by pip-audit.

Exit codes: 0 none is known, 1 some are, which are named. Where the index that knows them cannot be reached a line says
so: that is 0, too, unless `--needed`.
"""

import json
import subprocess
import sys
from typing import Any

COMMAND = [sys.executable, "-m", "pip_audit", "--local", "--format", "json", "--progress-spinner", "off", "--timeout"]
SECONDS = 5
"""Within which the index answers for a package."""


def asked() -> list[dict[str, Any]]:
    """What the index says of every package: its name, and its vulnerabilities or why it was skipped."""
    done = subprocess.run([*COMMAND, str(SECONDS)], capture_output=True, text=True, check=False)
    try:
        return json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):  # it ended with a traceback: no connection
        return []


def main(words: list[str]) -> int:
    """Ask, print what is known, and give the exit code."""
    packages = asked()
    answered = [package for package in packages if "vulns" in package]
    for package in answered:
        for known in package["vulns"]:
            mended = ", ".join(known["fix_versions"]) or "no version"
            print(f"audit: {package['name']} {package['version']}: {known['id']}, mended in {mended}")
    if len(answered) < len(packages) / 2 or not packages:
        print("audit: the package index says nothing of vulnerabilities here, so none was looked for")
        return int("--needed" in words)
    print(f"audit: {len(answered)} packages looked up")
    return int(any(package["vulns"] for package in answered))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
