"""`python -m orchestrator [--config FILE]`."""

import sys

from chassis.rpc import main
from orchestrator.app import open_alone
from orchestrator.settings import OrchestratorSettings

if __name__ == "__main__":
    sys.exit(main("orchestrator", OrchestratorSettings, open_alone))
