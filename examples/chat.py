"""A conversation of two turns over one session, in a suite that runs inside this program.

    python examples/chat.py

Without OPENAI_API_KEY or ANTHROPIC_API_KEY the model only echoes. To talk with a suite that runs already (`behest up`), replace the two
`async with` lines by `async with Behest() as behest:`.
"""

import asyncio
from pathlib import Path

from suite.composition import SuiteOptions
from suite.embedded import open_suite


async def main() -> None:
    """Asks twice in one session and prints the answers as they are produced."""
    options = SuiteOptions(data=Path(".data/examples"), local_model=False, log_level="error")
    async with open_suite(options) as suite, suite.client() as behest:
        session = ""
        for question in ("My name is Ada.", "What is my name?"):
            print(f"> {question}")
            run = await behest.run(question, session_id=session)
            session = run.session_id
            async for piece in run.text():
                print(piece, end="", flush=True)
            print()
        messages = await behest.messages(session)
        print(f"The session holds {len(messages)} messages.")


if __name__ == "__main__":
    asyncio.run(main())
