"""Settings: every mistake is named at once, with its place, its value and its remedy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from chassis.faults import SettingsInvalid
from chassis.reference import settings_reference
from chassis.settings import Secret, load, load_sections
from chassis.telemetry import LogSettings


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Remote(Strict):
    adapter: Literal["remote"]
    base_url: str = Field("https://example.org", description="Where it is.")
    api_key: Secret


class Scripted(Strict):
    adapter: Literal["scripted"]
    script: Path = Field(description="The file to play.")


class StoreSettings(Strict):
    listen: str = Field("127.0.0.1:50054", description="host:port.")
    lease_ms: int = Field(3000, ge=100, description="Milliseconds | of silence.")
    durability: Literal["full", "normal"] = "full"
    functions: list[str] = []
    ratio: float | None = None
    fast: bool = False
    aliases: dict[str, str] = {}
    providers: dict[str, Annotated[Remote | Scripted, Field(discriminator="adapter")]] = {}


def written(folder: Path, text: str) -> Path:
    file = folder / "behest.yaml"
    file.write_text(text)
    return file


def of_store(file: Path | None = None, env: dict[str, str] | None = None) -> StoreSettings:
    return load("session_store", StoreSettings, file, env or {})


def mistakes(**given: Any) -> list[str]:
    with pytest.raises(SettingsInvalid) as caught:
        of_store(**given)
    return [line.strip() for line in caught.value.message.splitlines()[1:]]


def test_defaults_need_neither_file_nor_environment() -> None:
    assert of_store() == StoreSettings()


def test_the_file_is_read_and_the_environment_wins(tmp_path: Path) -> None:
    file = written(tmp_path, "session_store:\n  listen: 127.0.0.1:1\n  lease_ms: 500\n")
    settings = of_store(file, {"BEHEST__SESSION_STORE__LEASE_MS": "700"})
    assert (settings.listen, settings.lease_ms) == ("127.0.0.1:1", 700)


@pytest.mark.parametrize(
    ("key", "raw", "field", "value"),
    [
        ("LISTEN", "123", "listen", "123"),
        ("LISTEN", "null", "listen", "null"),
        ("LEASE_MS", "700", "lease_ms", 700),
        ("FUNCTIONS", '["builtin:time", "x"]', "functions", ["builtin:time", "x"]),
        ("FUNCTIONS", "[builtin, x]", "functions", ["builtin", "x"]),
        ("RATIO", "0.5", "ratio", 0.5),
        ("RATIO", "null", "ratio", None),
        ("FAST", "true", "fast", True),
        ("DURABILITY", "normal", "durability", "normal"),
        ("ALIASES", "{fast: a/b}", "aliases", {"fast": "a/b"}),
        ("ALIASES__FAST", "a/b", "aliases", {"fast": "a/b"}),
    ],
)
def test_variables_are_read_as_what_the_field_wants(key: str, raw: str, field: str, value: object) -> None:
    assert getattr(of_store(env={f"BEHEST__SESSION_STORE__{key}": raw}), field) == value


def test_a_variable_means_the_key_of_the_file_whatever_its_case_and_dashes(tmp_path: Path) -> None:
    file = written(tmp_path, "session_store:\n  providers:\n    Open-AI: {adapter: remote, api_key: one}\n")
    settings = of_store(file, {"BEHEST__SESSION_STORE__PROVIDERS__OPEN_AI__BASE_URL": "http://here"})
    assert list(settings.providers) == ["Open-AI"]
    assert settings.providers["Open-AI"].base_url == "http://here"  # type: ignore[union-attr]


@pytest.mark.feature("O1")
def test_all_mistakes_are_told_at_once_with_place_remedy_and_nearest_name(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "session_store:\n  lisen: 3\n  lease_ms: soon\n  durability: ful\n  providers:\n"
        "    a: {adapter: remote, api_kye: sk-1, api_key: x}\n    b: {adapter: scripted}\nsesion_store: {}\n",
    )
    told = mistakes(file=file, env={"BEHEST__SESSION_STORE__FUNCTONS": "[]", "BEHEST__TOOL_EXECUTER__LISTEN": "x"})
    assert told == [
        "sesion_store: unknown section; did you mean session_store? (behest.yaml line 8)",
        "BEHEST__TOOL_EXECUTER__LISTEN: unknown section tool_executer; did you mean tool_executor? (environment)",
        "session_store.lease_ms: 'soon' is wrong: "
        "input should be a valid integer, unable to parse string as an integer (behest.yaml line 3)",
        "session_store.durability: 'ful' is wrong: input should be 'full' or 'normal' (behest.yaml line 4)",
        "session_store.providers.a.api_kye: unknown key; did you mean api_key? (behest.yaml line 6)",
        "session_store.providers.b.script: missing; set it: The file to play. (behest.yaml line 7)",
        "session_store.lisen: unknown key; did you mean listen? (behest.yaml line 2)",
        "session_store.functons: unknown key; did you mean functions? (BEHEST__SESSION_STORE__FUNCTONS)",
    ]


def test_mistakes_of_several_sections_come_together(tmp_path: Path) -> None:
    file = written(tmp_path, "session_store: {lisen: 1}\nlog: {levle: info}\n")
    with pytest.raises(SettingsInvalid) as caught:
        load_sections({"session_store": StoreSettings, "log": LogSettings}, file, {})
    assert [violation.field for violation in caught.value.violations] == ["session_store.lisen", "log.levle"]


def test_sections_of_other_services_are_not_looked_into(tmp_path: Path) -> None:
    file = written(tmp_path, "orchestrator: {anything: goes}\ntool_executor: 3\nsession_store: {lease_ms: 500}\ndata: here\n")
    assert of_store(file, {"BEHEST__ORCHESTRATOR__WHAT": "ever"}).lease_ms == 500


def test_an_empty_file_and_an_empty_section_mean_the_defaults(tmp_path: Path) -> None:
    assert of_store(written(tmp_path, "")) == StoreSettings()
    assert of_store(written(tmp_path, "session_store:\n")) == StoreSettings()


@pytest.mark.parametrize("key", ["api_key", "password", "auth_token", "client_secret"])
def test_values_that_look_secret_are_not_shown(tmp_path: Path, key: str) -> None:
    model = type("Secretive", (Strict,), {"__annotations__": {key: int}})
    with pytest.raises(SettingsInvalid) as caught:
        load("session_store", model, written(tmp_path, f"session_store: {{{key}: hunter2}}"), {})
    assert "hunter2" not in caught.value.message
    assert f"session_store.{key}" in caught.value.message


def test_a_mapping_that_is_wrong_is_not_printed(tmp_path: Path) -> None:
    told = mistakes(file=written(tmp_path, "session_store:\n  listen: {user: hunter2}\n"))
    assert told == ["session_store.listen: a mapping is wrong: input should be a valid string (behest.yaml line 2)"]


def test_a_key_given_twice_is_a_mistake(tmp_path: Path) -> None:
    told = mistakes(file=written(tmp_path, "session_store:\n  lease_ms: 500\n  lease_ms: 600\n"))
    assert told == ["session_store.lease_ms: given twice; the first is in line 2; remove one (behest.yaml line 3)"]


def test_invalid_yaml_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"behest\.yaml is not valid YAML: line 2, column"):
        of_store(written(tmp_path, "session_store: [\nlog: }\n"))


def test_yaml_that_would_build_objects_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="not valid YAML"):
        of_store(written(tmp_path, "session_store: !!python/object/apply:os.getcwd []\n"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"nowhere\.yaml cannot be read: No such file"):
        of_store(tmp_path / "nowhere.yaml")


def test_a_file_that_holds_a_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="must hold sections"):
        of_store(written(tmp_path, "- session_store\n"))


def test_a_variable_below_a_value_is_a_mistake(tmp_path: Path) -> None:
    file = written(tmp_path, "session_store:\n  listen: here\n")
    assert "session_store.listen: holds a value" in mistakes(file=file, env={"BEHEST__SESSION_STORE__LISTEN__PORT": "1"})[0]


def test_a_variable_that_is_not_yaml_is_a_mistake() -> None:
    assert mistakes(env={"BEHEST__SESSION_STORE__FUNCTIONS": '["a'}) == [
        "session_store.functions: is not valid YAML; quote it or write JSON (BEHEST__SESSION_STORE__FUNCTIONS)"
    ]


def test_variables_of_kubernetes_service_links_are_left_alone() -> None:
    assert of_store(env={"BEHEST_SESSION_STORE_SERVICE_HOST": "10.0.0.1", "BEHEST_SESSION_STORE_PORT": "tcp://x"}) == StoreSettings()


# Secrets


def test_a_secret_is_read_from_the_environment_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = Secret("env:BEHEST_TEST_KEY")
    monkeypatch.delenv("BEHEST_TEST_KEY", raising=False)
    with pytest.raises(SettingsInvalid, match="BEHEST_TEST_KEY is not set"):
        secret.read()
    monkeypatch.setenv("BEHEST_TEST_KEY", "one\n")
    assert secret.read() == "one"
    monkeypatch.setenv("BEHEST_TEST_KEY", "two")
    assert secret.read() == "two"


@pytest.mark.feature("P21")
def test_a_secret_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    mounted = tmp_path / "key"
    secret = Secret(f"file:{mounted}")
    with pytest.raises(SettingsInvalid, match="key cannot be used: No such file"):
        secret.read()
    mounted.write_text("one\n")
    assert secret.read() == "one"
    rotated = tmp_path / "next"
    rotated.write_text("two\n")
    rotated.replace(mounted)  # as Kubernetes swaps a mounted secret
    assert secret.read() == "two"
    mounted.write_text("")
    with pytest.raises(SettingsInvalid, match="it is empty"):
        secret.read()


def test_a_secret_file_is_not_read_again_while_it_stays_the_same(tmp_path: Path) -> None:
    mounted = tmp_path / "key"
    mounted.write_text("one")
    secret = Secret(f"file:{mounted}")
    secret.read()
    stat = mounted.stat()
    mounted.write_text("two")
    os.utime(mounted, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert secret.read() == "one"


@pytest.mark.feature("P21")
def test_a_secret_never_shows_its_value() -> None:
    secret = Remote(adapter="remote", api_key=Secret("hunter2"))
    shown = f"{secret!r} {secret.api_key} {secret.model_dump()} {secret.model_dump_json()}"
    assert "hunter2" not in shown
    assert secret.api_key.read() == "hunter2"
    assert repr(Secret("env:NAME")) == "Secret(env:NAME)"


def test_an_empty_secret_is_a_mistake(tmp_path: Path) -> None:
    told = mistakes(file=written(tmp_path, "session_store:\n  providers:\n    a: {adapter: remote, api_key: ''}\n"))
    assert told[0].startswith("session_store.providers.a.api_key: the value is wrong")


# The reference page


def test_the_reference_has_a_row_for_every_key() -> None:
    rows = settings_reference("session_store", StoreSettings).splitlines()
    assert rows[0] == "| key | type | default | description |"
    assert '| `session_store.listen` | text | `"127.0.0.1:50054"` | host:port. |' in rows
    assert "| `session_store.lease_ms` | whole number | `3000` | Milliseconds \\| of silence. |" in rows
    assert '| `session_store.durability` | `full`, `normal` | `"full"` |  |' in rows
    assert "| `session_store.functions` | list of text | `[]` |  |" in rows
    assert "| `session_store.ratio` | number or null | `null` |  |" in rows
    assert "| `session_store.providers.<name>.script` | path | required | (adapter `scripted`) The file to play. |" in rows
    assert len(rows) == 2 + 8 + 3 + 2


@pytest.mark.parametrize(
    ("text", "demand"),
    [
        ("session_store: 5", "session_store: 5 is wrong: it must be a mapping of keys to values"),
        ("session_store: {functions: one}", "session_store.functions: 'one' is wrong: it must be a list, such as [a, b]"),
        ("session_store: {aliases: [a]}", "session_store.aliases: a list is wrong: it must be a mapping of keys to values"),
        ("session_store: {providers: {p: {}}}", "session_store.providers.p: a mapping is wrong: it needs the key 'adapter'"),
        (
            "session_store: {providers: {p: {adapter: other}}}",
            "session_store.providers.p: a mapping is wrong: adapter must be one of 'remote', 'scripted'",
        ),
    ],
)
def test_what_has_to_stand_there_is_said_in_the_words_of_the_file(text: str, demand: str, tmp_path: Path) -> None:
    assert mistakes(file=written(tmp_path, text)) == [f"{demand} (behest.yaml line 1)"]
