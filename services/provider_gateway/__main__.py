"""`python -m provider_gateway [--config FILE]` runs the provider gateway alone.

`python -m provider_gateway migrate` brings its schema in PostgreSQL forward.
"""

from __future__ import annotations

import sys

from chassis import migrating
from chassis.rpc import main
from provider_gateway.app import open_app
from provider_gateway.settings import ProviderGatewaySettings

if __name__ == "__main__":
    if sys.argv[1:2] == ["migrate"]:
        sys.exit(migrating.main("provider_gateway", ProviderGatewaySettings, sys.argv[2:]))
    sys.exit(main("provider_gateway", ProviderGatewaySettings, open_app))
