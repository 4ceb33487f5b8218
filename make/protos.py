"""Lints the protos and refuses what would break a client built against an earlier version of them.

Earlier means: $PROTO_BASE if set, else the newest release tag, else where this branch left origin/main,
else the commit before the last one that touched proto/. Where there is none, nothing was published yet.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUF = Path(sys.executable).parent / "buf"


def main() -> int:
    """The worse of buf's two verdicts."""
    verdicts = [_buf("lint")]
    base = next(filter(_has_protos, _bases()), None)
    if base is not None:
        verdicts.append(_buf("breaking", "--against", f".git#ref={base}"))
    return max(verdicts)


def _bases() -> Iterator[str]:
    head = _git("rev-parse", "HEAD")
    yield os.environ.get("PROTO_BASE", "")
    yield _git("describe", "--tags", "--abbrev=0", "--match=v*", "HEAD")
    fork = _git("merge-base", "HEAD", "origin/main")
    yield fork if fork != head else ""
    yield _git("rev-parse", _git("log", "-1", "--format=%H~1", "--", "proto"))


def _has_protos(commit: str) -> bool:
    return bool(commit) and bool(_git("ls-tree", commit, "buf.yaml")) and bool(_git("ls-tree", commit, "proto"))


def _git(*arguments: str) -> str:
    """What git says, empty where it has no answer."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _buf(*arguments: str) -> int:
    return subprocess.run([str(BUF), *arguments], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
