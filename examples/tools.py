"""An agent with a tool of your own, in a suite that runs inside this program.

    python examples/tools.py

The tool is an ordinary function: its schema comes from its signature and docstring. The model is scripted to call it, so that the example
runs without a key; with one, remove the provider `scripted` and the agent's model below.
"""

import asyncio
import os
import tempfile
from pathlib import Path

from suite.composition import SuiteOptions
from suite.embedded import open_suite
from tool_executor.tools import ToolFailed, tool

RATES = {"EUR": 1.0, "USD": 1.25, "CHF": 0.95}

SETTINGS = f"""
tool_executor:
  functions: ["{Path(__file__).resolve()}:convert"]
orchestrator:
  agents:
    banker:
      description: changes money
      instructions: You change money. Use the tool; never guess a rate.
      model: scripted/banker
      tools: [convert]
provider_gateway:
  default_model: scripted/banker
  providers:
    scripted:
      adapter: scripted
      script:
        rules:
          - when: {{role: tool, contains: "125"}}
            turns: [{{text: "100 EUR are 125 USD."}}]
          - when: {{contains: "100 EUR"}}
            turns: [{{calls: [{{name: convert, arguments: {{amount: 100, source: EUR, target: USD}}}}]}}]
"""


@tool(read_only=True)
def convert(amount: float, source: str, target: str) -> float:
    """Change an amount of money from one currency into another.

    Args:
        amount: How much.
        source: The currency's code, such as EUR.
        target: The code of the currency to get.
    """
    missing = {source, target} - RATES.keys()
    if missing:
        raise ToolFailed(f"no rate for {', '.join(sorted(missing))}; known are {', '.join(RATES)}")
    return round(amount / RATES[source] * RATES[target], 2)


async def main() -> None:
    """Runs one order and prints what happened on the way."""
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "behest.yaml"
        config.write_text(SETTINGS)
        options = SuiteOptions(data=Path(scratch), config=config, local_model=False, log_level="error")
        async with open_suite(options, env=os.environ) as suite, suite.client() as behest:
            run = await behest.run("How many dollars are 100 EUR?")
            async for event in run:
                if event.HasField("tool_call_completed"):
                    call = event.tool_call_completed.call
                    print(f"calls {call.name} {call.arguments.decode()}")
                if event.HasField("tool_execution_finished"):
                    print(f"took {event.tool_execution_finished.result.duration_ms:.1f} ms")
            print(await run.answer())


if __name__ == "__main__":
    asyncio.run(main())
