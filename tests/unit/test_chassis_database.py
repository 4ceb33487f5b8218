"""Naming a database: what is taken, what is refused and how, and that no password is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from chassis.database import Database, shown
from chassis.faults import SettingsInvalid
from chassis.settings import load
from session_store.settings import SessionStoreSettings
from tool_executor.settings import ToolExecutorSettings

PASSWORD = "hunter2"
SECTIONS = {"session_store": SessionStoreSettings, "tool_executor": ToolExecutorSettings}


def setting(value: str, section: str = "session_store") -> Database:
    loaded = load(section, SECTIONS[section], None, {f"BEHEST__{section.upper()}__DATABASE": value})
    assert isinstance(loaded.database, Database)  # type: ignore[attr-defined]
    return loaded.database  # type: ignore[attr-defined, no-any-return]


@pytest.mark.feature("O1")
@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_both_spellings_of_postgresql_are_taken_by_both_services(section: str, scheme: str) -> None:
    url = f"{scheme}://user:{PASSWORD}@db:5432/name"
    found = setting(url, section)
    assert (found.is_postgres, found.sqlite_path, found.url()) == (True, None, url)


@pytest.mark.feature("O1")
def test_a_database_may_stand_in_a_variable_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"postgresql://user:{PASSWORD}@db/name"
    monkeypatch.setenv("DATABASE_URL", url)
    (tmp_path / "url").write_text(url + "\n")
    for place in ("env:DATABASE_URL", f"file:{tmp_path / 'url'}"):
        found = setting(place)
        assert (found.url(), str(found)) == (url, place)
    (tmp_path / "url").write_text("sqlite:here.db")
    assert setting(f"file:{tmp_path / 'url'}").sqlite_path == "here.db"


@pytest.mark.feature("O1")
def test_a_variable_that_lacks_or_holds_something_else_is_named_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsInvalid, match="DATABASE_URL is not set"):
        setting("env:DATABASE_URL").url()
    monkeypatch.setenv("DATABASE_URL", f"mysql://user:{PASSWORD}@db/name")
    with pytest.raises(SettingsInvalid, match=r"env:DATABASE_URL holds is no database: .*postgresql://") as refused:
        setting("env:DATABASE_URL").url()
    assert PASSWORD not in refused.value.message


@pytest.mark.feature("O1")
@pytest.mark.parametrize(
    ("value", "near"),
    [
        (f"postgrse://user:{PASSWORD}@db/name", "did you mean postgresql:"),
        (f"postgressql:user:{PASSWORD}@db/name", "did you mean postgresql:"),
        (f"postgresql:/user:{PASSWORD}@db/name", "postgresql://user:password@host:5432/name"),
        ("sqlit:behest.db", "did you mean sqlite:"),
        ("behest.db", "sqlite:PATH"),
    ],
)
def test_a_wrong_scheme_is_refused_once_with_the_nearest_and_without_the_password(value: str, near: str) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        setting(value)
    said = refused.value.message
    assert near in said and PASSWORD not in said and len(refused.value.violations) == 1


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("postgresql://user:hunter2@db:5432/name", "postgresql://user@db:5432/name"),
        ("postgresql://user:hun/t@er2@db/name?sslmode=require&password=hunter2", "postgresql://user@db/name?sslmode=require"),
        ("postgresql://user:hunter2", "postgresql://…"),
        ("postgresql://db:5432/name", "postgresql://db:5432/name"),
        ("postgresql://u:hunter2@a:1,b:2/name?target_session_attrs=primary", "postgresql://u@a:1,b:2/name?target_session_attrs=primary"),
        ("sqlite:behest.db", "sqlite:behest.db"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, seen: str) -> None:
    assert shown(url) == str(Database(url)) == repr(Database(url)) == seen


def test_a_dump_of_settings_holds_no_password() -> None:
    settings = SessionStoreSettings(database=f"postgresql://user:{PASSWORD}@db/name")  # type: ignore[arg-type]
    assert PASSWORD not in settings.model_dump_json() + repr(settings) + str(settings.model_dump(mode="json"))
