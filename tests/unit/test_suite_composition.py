"""What a suite fills in: everything the user left open, nothing the user wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from chassis.faults import SettingsInvalid
from suite.addresses import Service, beside, listen_address
from suite.composition import SuiteOptions, Written, default_model, overlay, read_written, wants_local_model
from suite.local_model import LocalModel

OPTIONS = SuiteOptions(Path("/data"))
LOCAL = LocalModel("http://127.0.0.1:9/v1", 1)


def written(file: dict | None = None, **env: str) -> Written:
    return Written(file or {}, env)


def test_ports_lie_side_by_side_from_the_orchestrators() -> None:
    assert [listen_address(service, 50051)[-5:] for service in Service] == ["50051", "50052", "50053", "50054"]
    assert beside("example:7000", Service.SESSION_STORE) == "example:7003"


@pytest.mark.parametrize("target", ["", "host", "host:", ":1", "host:http"])
def test_a_target_without_host_or_port_is_refused_with_an_example(target: str) -> None:
    with pytest.raises(SettingsInvalid, match=r"host:port; write for example 127\.0\.0\.1:50051"):
        beside(target, Service.ORCHESTRATOR)


@pytest.mark.feature("O2")
def test_silence_is_filled_in_with_ports_and_paths_below_the_data_folder() -> None:
    env = overlay(OPTIONS, written(), None).env
    assert env["BEHEST__ORCHESTRATOR__LISTEN"] == "127.0.0.1:50051"
    assert env["BEHEST__SESSION_STORE__DATABASE"] == "sqlite:/data/behest.db"
    assert env["BEHEST__ORCHESTRATOR__NEIGHBOURS__SESSION_STORE__TARGET"] == "127.0.0.1:50054"


def test_what_the_user_wrote_in_file_or_environment_stays() -> None:
    file = {"session_store": {"listen": "127.0.0.1:7", "database": "memory:"}}
    env = overlay(OPTIONS, written(file, BEHEST__TOOL_EXECUTOR__DATABASE="memory:"), None).env
    assert "BEHEST__SESSION_STORE__DATABASE" not in env and "BEHEST__SESSION_STORE__LISTEN" not in env
    assert env["BEHEST__TOOL_EXECUTOR__DATABASE"] == "memory:"
    assert env["BEHEST__ORCHESTRATOR__NEIGHBOURS__SESSION_STORE__TARGET"] == "127.0.0.1:7"


def test_a_port_base_that_was_asked_for_wins_over_the_file() -> None:
    env = overlay(SuiteOptions(Path("d"), port_base=6000), written({"session_store": {"listen": "127.0.0.1:7"}}), None).env
    assert env["BEHEST__SESSION_STORE__LISTEN"] == "127.0.0.1:6003"
    assert env["BEHEST__ORCHESTRATOR__NEIGHBOURS__SESSION_STORE__TARGET"] == "127.0.0.1:6003"


def test_the_configured_model_comes_before_all_others() -> None:
    assert default_model(written({"provider_gateway": {"default_model": "mine/m"}}, OPENAI_API_KEY="k"), LOCAL) == ("", "")


def test_the_local_model_comes_before_keys_and_keys_before_the_echo() -> None:
    assert default_model(written(OPENAI_API_KEY="k"), LOCAL)[0] == "local/smollm2"
    assert default_model(written(OPENAI_API_KEY="k", ANTHROPIC_API_KEY="k"), None)[0].startswith("openai/")
    assert default_model(written(ANTHROPIC_API_KEY="k"), None)[0].startswith("anthropic/")
    assert default_model(written(GEMINI_API_KEY="k"), None)[0].startswith("gemini/")
    model, notice = default_model(written(), None)
    assert model.startswith("scripted/") and "OPENAI_API_KEY" in notice


def test_nothing_is_said_of_a_default_that_no_agent_needs() -> None:
    needless = {"orchestrator": {"agents": {"a": {"model": "b/c"}}}}
    assert default_model(written(needless), None)[1] == default_model(written(needless, OPENAI_API_KEY="k"), None)[1] == ""


@pytest.mark.feature("P24")
@pytest.mark.parametrize(
    ("asked", "file", "env", "installed", "wanted"),
    [
        (True, {}, {"OPENAI_API_KEY": "k"}, False, True),
        (False, {}, {}, True, False),
        (None, {}, {}, True, True),
        (None, {}, {}, False, False),
        (None, {}, {"OPENAI_API_KEY": "k"}, True, False),
        (None, {"provider_gateway": {"default_model": "a/b"}}, {}, True, False),
        (None, {"orchestrator": {"agents": {"a": {"model": "b/c"}}}}, {}, True, False),
        (None, {"orchestrator": {"agents": {"a": {"model": "b/c"}, "d": {}}}}, {}, True, True),
        (None, {"orchestrator": {"agents": 5}}, {}, True, True),
    ],
)
def test_the_local_model_starts_when_asked_for_or_when_nothing_else_could_answer(
    asked: bool | None, file: dict, env: dict, installed: bool, wanted: bool
) -> None:
    assert wants_local_model(SuiteOptions(Path("d"), local_model=asked), written(file, **env), installed) is wanted


def test_the_local_model_becomes_a_provider() -> None:
    env = overlay(OPTIONS, written(), LOCAL).env
    assert '"base_url": "http://127.0.0.1:9/v1"' in env["BEHEST__PROVIDER_GATEWAY__PROVIDERS__LOCAL"]
    assert env["BEHEST__PROVIDER_GATEWAY__DEFAULT_MODEL"] == "local/smollm2"


def test_a_broken_file_counts_as_silent_here(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: [")
    assert read_written(tmp_path / "x.yaml", {}).file == {}
    assert read_written(tmp_path / "none.yaml", {}).file == {}


def test_below_a_section_that_is_a_plain_value_nothing_is_filled_in() -> None:
    env = overlay(OPTIONS, written({"orchestrator": 5}), None).env
    assert not any(name.startswith("BEHEST__ORCHESTRATOR") for name in env)
    assert "BEHEST__SESSION_STORE__LISTEN" in env
