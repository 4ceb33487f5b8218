"""`python -m provider_gateway [--config FILE]` runs the provider gateway alone."""

from __future__ import annotations

import sys

from chassis.rpc import main
from provider_gateway.app import open_app
from provider_gateway.settings import ProviderGatewaySettings

if __name__ == "__main__":
    sys.exit(main("provider_gateway", ProviderGatewaySettings, open_app))
