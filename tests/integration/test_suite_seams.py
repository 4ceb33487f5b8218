"""An answer that breaks off in one model and is gone on with by another, through the whole suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from suite.composition import SuiteOptions
from suite.embedded import open_suite
from suite.timeline import rows
from suite.transcript import Transcript

SPEECH = "The quick brown fox jumps over the lazy dog."


def configuration(continues: bool) -> dict[str, Any]:
    cut = {"text": SPEECH, "fault": {"kind": "cut", "after_pieces": 4}}
    return {
        "log": {"level": "error"},
        "orchestrator": {"agents": {"a": {"instructions": "Speak."}}},
        "provider_gateway": {
            "default_model": "any",
            "aliases": {"any": {"targets": ["one/m", {"model": "two/m", "tier": 2}], "continue_after_output": continues}},
            "providers": {
                "one": {"adapter": "scripted", "script": {"turns": [cut], "otherwise": "repeat", "piece": 3}},
                "two": {"adapter": "scripted", "script": {"turns": [{"text": SPEECH}], "otherwise": "repeat", "piece": 3}},
            },
        },
        "tool_executor": {"database": "memory:"},
        "session_store": {"database": "memory:"},
    }


@pytest.mark.feature("P12")
@pytest.mark.feature("R12")
async def test_a_run_goes_on_over_a_seam_which_its_log_and_its_timeline_show(tmp_path: Path) -> None:
    path = tmp_path / "behest.yaml"
    path.write_text(yaml.safe_dump(configuration(True)))
    async with open_suite(SuiteOptions(data=tmp_path, config=path, local_model=False)) as suite, suite.client() as client:
        handle = await client.run("Speak")
        transcript, events = Transcript(), []
        async for event in handle:
            events.append(event)
            transcript.feed(event)
    assert transcript.text == SPEECH
    (place,) = [number for number, event in enumerate(events) if event.WhichOneof("kind") == "model_seam"]
    seam = events[place].model_seam.seam
    assert (seam.provider, seam.model, seam.text_characters, seam.fault.reason) == ("two", "m", 12, "STREAM_INCOMPLETE")
    assert "".join(event.text_delta.text for event in events[:place]) == SPEECH[:12]
    assert not any(event.WhichOneof("kind") == "model_failed" for event in events)
    (line,) = [row for row in rows(events) if row.kind == "model seam"]
    assert line.details == "two/m goes on after 12 characters: STREAM_INCOMPLETE"
