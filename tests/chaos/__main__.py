"""`make chaos DURATION=60 SEED=7`: see harness.py."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("tests", "services", "gen")]  # a checkout that is not installed works, too

# The harness starts processes from threads while it calls services: what gRPC does in the child of a fork ends some of them.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

if __name__ == "__main__":
    from chaos.harness import main

    sys.exit(main())
