"""What the tool executor's README shows works as shown."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from chassis.settings import load
from kit.executor import open_executor
from tool_executor.settings import ToolExecutorSettings

README = Path(__file__).parents[2] / "services" / "tool_executor" / "README.md"


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)
    assert found
    return found.group(1)


@pytest.mark.feature("T2")
async def test_the_tool_in_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("weather.py").write_text(block("python"))
    Path("behest.yaml").write_text(block("yaml"))
    settings = load("tool_executor", ToolExecutorSettings, Path("behest.yaml"), {})
    async with open_executor(functions=settings.functions, database=settings.database) as executor:
        progress, result = await executor.run_loudly("temperature", '{"city": "Lisbon", "unit": "F"}')
        assert [p.message for p in progress] == ["looking Lisbon up"]
        assert json.loads(result.content) == {"city": "Lisbon", "temperature": 70.7}
        unknown = await executor.run("temperature", '{"city": "Atlantis"}')
        assert json.loads(unknown.content)["message"] == "no city is called Atlantis; known are Lisbon, Oslo"
        assert (await executor.run("calculator", '{"expression": "6*7"}')).content == "42"
