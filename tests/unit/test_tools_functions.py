"""Python functions as tools: schemas from signatures and docstrings, references, and what comes with the executor."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from chassis.faults import SettingsInvalid, ToolInvalid
from kit import sample_tools
from tool_executor import ToolContext, ToolFailed, tool
from tool_executor.adapters.builtin.calculator import calculator
from tool_executor.adapters.builtin.time import time
from tool_executor.adapters.functions.function import describe, render
from tool_executor.adapters.functions.load import Timeouts, load_functions
from tool_executor.adapters.functions.signature import SignatureUnusable, read_signature
from tool_executor.adapters.json_schemas import JsonSchemas
from tool_executor.domain.arguments import ArgumentsRefused
from tool_executor.operations.ports import FunctionFailed


def schema_of(function: Callable[..., Any]) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(read_signature(function).parameters)
    return schema


def google(city: str, days: int = 1) -> None:
    """Get the forecast.

    More about it.

    Args:
        city: Its name,
            such as Lisbon.
        days: How many days ahead.

    Returns:
        Nothing.
    """


def numpy(city: str, days: int = 1) -> None:
    """Get the forecast.

    More about it.

    Parameters
    ----------
    city : str
        Its name, such as Lisbon.
    days : int
        How many days ahead.
    """


def rest(city: str, days: int = 1) -> None:
    """Get the forecast.

    More about it.

    :param city: Its name, such as Lisbon.
    :param days: How many days ahead.
    """


@pytest.mark.feature("T2")
@pytest.mark.parametrize("function", [google, numpy, rest])
def test_all_three_docstring_layouts_describe_the_parameters(function: Callable[..., Any]) -> None:
    signature = read_signature(function)
    assert signature.description == "Get the forecast.\n\nMore about it."
    assert json.loads(signature.parameters) == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Its name, such as Lisbon."},
            "days": {"type": "integer", "description": "How many days ahead.", "default": 1},
        },
        "required": ["city"],
        "additionalProperties": False,
    }


@pytest.mark.feature("T2")
def test_every_kind_of_annotation_finds_its_schema() -> None:
    schema = schema_of(sample_tools.typed)
    properties = schema["properties"]
    assert schema["required"] == ["color", "point", "address", "person"]
    assert schema["$defs"]["Color"]["enum"] == ["red", "blue"]
    assert schema["$defs"]["Point"]["required"] == ["x"]
    assert schema["$defs"]["Address"]["required"] == ["street", "number"]
    assert schema["$defs"]["Person"]["properties"]["age"]["minimum"] == 0
    assert properties["mode"] == {"enum": ["fast", "slow"], "type": "string", "default": "fast", "description": "How fast."}
    assert properties["maybe"] == {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None}
    assert '"title"' not in json.dumps(schema)


def test_a_parameter_called_title_keeps_its_place() -> None:
    def publish(title: str, properties: dict[str, int], schema: int = 1, model_config: str = "", _hidden: int = 0) -> None: ...

    assert set(schema_of(publish)["properties"]) == {"title", "properties", "schema", "model_config", "_hidden"}


def test_annotated_fields_say_more_and_win_over_the_docstring() -> None:
    def roll(sides: Annotated[int, Field(ge=2, le=100, description="How many.")] = 6) -> None:
        """Roll.

        Args:
            sides: Something else.
        """

    assert schema_of(roll)["properties"]["sides"] == {
        "type": "integer",
        "minimum": 2,
        "maximum": 100,
        "default": 6,
        "description": "How many.",
    }


def test_the_context_does_not_appear_in_the_schema() -> None:
    def talk(text: str, context: ToolContext) -> None: ...
    def maybe(here: ToolContext | None = None) -> None: ...

    assert set(schema_of(talk)["properties"]) == {"text"}
    assert read_signature(talk).context_parameter == "context"
    assert read_signature(maybe).context_parameter == "here"


def test_arguments_become_the_types_that_the_function_asks_for() -> None:
    bound = read_signature(sample_tools.typed).bind(
        {"color": "red", "point": {"x": 1}, "address": {"street": "s", "number": 1}, "person": {"name": "n"}}
    )
    assert bound["color"] is sample_tools.Color.RED and bound["point"] == sample_tools.Point(1)
    assert bound["person"] == sample_tools.Person(name="n")
    with pytest.raises(ArgumentsRefused, match=r"person\.age"):
        read_signature(sample_tools.typed).bind({**bound, "person": {"name": "n", "age": -1}})


async def _generates() -> AsyncIterator[int]:
    """Yield."""
    yield 1


def _star(*numbers: int) -> None:
    """Take any number."""


def _keywords(**numbers: int) -> None:
    """Take any names."""


def _untypable(out: Callable[[], int]) -> None:
    """Take what JSON cannot say."""


def _unresolved(out: Missing) -> None:  # type: ignore[name-defined]  # noqa: F821
    """Name a type that is not there."""


def _silent(text: str) -> None:
    pass


@tool(read_only=True, destructive=True)
def _torn() -> None:
    """Contradict itself."""


@tool(name="no spaces")
def _named() -> None:
    """Have a bad name."""


@tool(timeout=1e9)
def _endless() -> None:
    """Take forever."""


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (_generates, "it yields; return one value"),
        (_star, "has no fixed name"),
        (_keywords, "has no fixed name"),
        (_untypable, "no JSON Schema"),
        (_unresolved, "cannot be resolved"),
        (_silent, "it has no docstring"),
        (_torn, "contradict"),
        (_named, "give it one"),
        (_endless, "timeout"),
    ],
)
def test_a_function_that_cannot_be_a_tool_says_why(function: Callable[..., Any], problem: str) -> None:
    with pytest.raises(SignatureUnusable, match=problem):
        describe(function, "m:f", 30.0, 3600.0)


TYPES: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(-(2**53), 2**53),
    str: st.text(st.characters(codec="utf-8"), max_size=20),
    bool: st.booleans(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    list[int]: st.lists(st.integers(0, 9), max_size=3),
    dict[str, bool]: st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=3), st.booleans(), max_size=3),
    int | None: st.none() | st.integers(0, 9),
    Literal["a", 1]: st.sampled_from(["a", 1]),
    Any: st.none() | st.integers(0, 9) | st.text(st.characters(codec="utf-8"), max_size=3),
}


@pytest.mark.feature("T2")
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_fits_the_annotations_is_valid_by_the_schema_and_reaches_the_function_unchanged(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(["a", "b_c", "self_", "title", "type"]), unique=True, max_size=4))
    types = {name: data.draw(st.sampled_from(list(TYPES))) for name in names}
    required = data.draw(st.sets(st.sampled_from(names))) if names else set()
    namespace: dict[str, Any] = {"types": types}
    parameters = ", ".join(
        f"{n}: types['{n}']" + ("" if n in required else " = None") for n in sorted(names, key=lambda n: n not in required)
    )
    exec(f"def function({parameters}): return locals()", namespace)
    signature = read_signature(namespace["function"])
    check = JsonSchemas().compile(signature.parameters, "parameters")
    given_names = required | (data.draw(st.sets(st.sampled_from(names))) if names else set())
    arguments = {name: data.draw(TYPES[types[name]]) for name in given_names}
    assert check.problems(arguments) == ()
    assert signature.bind(arguments) == arguments
    assert check.problems({**arguments, "other": 1})[0].reason
    for name in required:
        assert check.problems({n: v for n, v in arguments.items() if n != name})


@pytest.mark.feature("T2")
def test_references_find_functions_in_modules_files_and_the_builtin_ones(tmp_path: Path) -> None:
    path = tmp_path / "own tools.py"
    path.write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\nfrom tool_executor import tool\n"
        "@dataclass\nclass P:\n    x: int\n"
        "@tool(read_only=True)\ndef first(p: P) -> int:\n    'Get x.'\n    return p.x\n"
        "@tool\nasync def second() -> int:\n    'Get two.'\n    return 2\n"
        "def third() -> int:\n    'Get three.'\n    return 3\n"
    )
    found = load_functions([f"{path}:*", f"{path}:third", "builtin:time", "kit.sample_tools:unmarked"], Timeouts())
    assert [f.tool.name for f in found] == ["first", "second", "third", "time", "unmarked"]
    assert [f.threaded for f in found] == [True, False, True, False, True]
    assert found[0].tool.function == f"{path}:first"


@pytest.mark.feature("T2")
def test_all_bad_references_are_named_at_once_with_remedies(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("raise RuntimeError('no')")
    references = [
        "builtin:tim",
        "nothing.there:f",
        str(tmp_path / "absent.py") + ":f",
        f"{broken}:f",
        "json:*",
        "kit.sample_tools",
        "kit.sample_tools:Point",
        "kit.sample_tools:echo",
        "kit.sample_tools:MOST_AT_ONCE",
        "builtin:time",
        "datetime:datetime",
    ]
    with pytest.raises(SettingsInvalid) as caught:
        load_functions(references, Timeouts())
    lines = caught.value.message.splitlines()
    wanted = [
        "did you mean 'time'",
        "module 'nothing' is not found",
        "there is no file",
        "broken.py failed to load: RuntimeError: no",
        "no function there is marked with @tool",
        "it is not written as module:function",
        "'Point' is not a function",
        "'MOST_AT_ONCE' is not a function",
        "'datetime' is not a function",
    ]
    assert len(lines) == len(wanted)
    for line, words in zip(lines, wanted, strict=True):
        assert line.startswith("tool_executor.functions: ") and words in line


def test_two_tools_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def time():\n    'Tell.'\n")
    with pytest.raises(SettingsInvalid, match="are both called 'time'"):
        load_functions(["builtin:time", f"{path}:time"], Timeouts())


def test_the_public_module_needs_the_standard_library_alone() -> None:
    source = Path(sys.modules["tool_executor.tools"].__file__ or "").read_text()
    assert "pydantic" not in source and "behest" not in source.replace("__behest_tool__", "")


@pytest.mark.feature("T4")
@pytest.mark.parametrize(
    "schema", [{"$ref": "http://127.0.0.1:1/x"}, {"$ref": "file:///etc/passwd"}, {"$schema": "http://127.0.0.1:1/meta"}, {"type": "objekt"}]
)
def test_schemas_are_never_fetched_and_wrong_ones_are_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(ToolInvalid, match=r"tool\.result_schema is not a usable JSON Schema"):
        JsonSchemas().compile(json.dumps(schema).encode(), "tool.result_schema")


@pytest.mark.feature("T4")
@pytest.mark.timeout(10)
@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|aa)+$", r"^(?=(a+))\1*b(a|aa)+$", "^(.*a){20}$"])
def test_patterns_that_explode_do_not(pattern: str) -> None:
    check = JsonSchemas().compile(json.dumps({"type": "string", "pattern": pattern}).encode(), "x")
    assert check.problems("a" * 5000 + "!")


def test_values_that_json_cannot_hold_are_a_problem_not_a_crash() -> None:
    check = JsonSchemas().compile(b'{"properties": {"a": {"type": "string", "minLength": 2}}}', "x")
    assert check.problems({"a": "\ud800"})


@pytest.mark.parametrize(
    ("value", "text", "is_json"),
    [
        ("text", "text", False),
        ("né".encode(), "né", False),
        (None, "null", True),
        ({"a": [1, True]}, '{"a":[1,true]}', True),
        (sample_tools.Point(1, 2), '{"x":1,"y":2}', True),
        (sample_tools.Person(name="n"), '{"name":"n","age":0}', True),
        ([math.nan, math.inf], '["NaN","Infinity"]', True),
        (sample_tools.Color.RED, '"red"', True),
    ],
)
def test_returned_values_are_written_as_text_or_json(value: object, text: str, is_json: bool) -> None:
    output = render(value)
    assert (output.text, output.is_json) == (text, is_json)


@pytest.mark.parametrize("value", [object(), b"\xff", iter([1]), (n for n in [1]), {"a": {object()}}])
def test_values_without_json_are_refused_in_clear_words(value: object) -> None:
    with pytest.raises(FunctionFailed, match="must return text or JSON values"):
        render(value)


@pytest.mark.feature("T16")
@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("1 + 2 * 3", "7"),
        ("0.1 + 0.2", "0.3"),
        ("2 ** 64", "18446744073709551616"),
        ("2^10", "1024"),
        ("7 // 2 + 7 % 4", "6"),
        ("-(3 - 5)", "2"),
        ("sqrt(2) / 2", "0.707106781186548"),
        ("round(2.675, 2)", "2.67"),
        ("max(1, 2.5, 2)", "2.5"),
        ("sum(1, 2, 3)", "6"),
        ("factorial(20)", "2432902008176640000"),
        ("2 * pi", "6.28318530717959"),
        ("1e3", "1000"),
        ("  4 / 2 ", "2"),
        ("1_000 + 1", "1001"),
    ],
)
async def test_the_calculator_is_right(expression: str, answer: str) -> None:
    assert await calculator(expression) == answer


@pytest.mark.feature("T16")
@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "expression",
    [
        "1 / 0",
        "9 ** 9 ** 9",
        "2 ** 5000",
        "10 ** 400 * 1.0",
        "factorial(100000)",
        "factorial(2.5)",
        "(-8) ** 0.5",
        "sqrt(-1)",
        "__import__('os')",
        "().__class__",
        "[1] * 9",
        "'a' * 9",
        "True + 1",
        "abs",
        "abs()",
        "x",
        "1 if 1 else 2",
        "lambda: 1",
        "1; 2",
        "",
        "1 +",
        "(" * 300 + "1" + ")" * 300,
        "-" * 900 + "1",
        "1+" * 600 + "1",
        "9" * 1001,
        "(2 ** 4000) ** (2 ** 4000)",
        "round(1.5, 10 ** 30)",
        "1e308 * 10",
        "max()",
        "1\x00",
        "0.5 ** -99999",
        "round(10 ** 300, -10 ** 9)",
        "3 @ 4",
        "1 << 99999999",
    ],
)
async def test_the_calculator_refuses_what_is_not_arithmetic_or_too_large(expression: str) -> None:
    with pytest.raises(ToolFailed):
        await calculator(expression)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789.+-*/%()^e ,sqrtmaxpi_", max_size=60))
async def test_the_calculator_answers_or_says_why_not(expression: str) -> None:
    try:
        assert await calculator(expression)
    except ToolFailed as failure:
        assert str(failure)


@pytest.mark.feature("T16")
async def test_the_time_is_told_in_a_zone_and_a_typo_names_the_nearest() -> None:
    told = await time("Asia/Tokyo")
    assert told["time"].endswith("+09:00") and told["timezone"] == "Asia/Tokyo"
    assert (await time())["time"].endswith("+00:00")
    with pytest.raises(ToolFailed, match="Europe/Lisbon"):
        await time("Europe/Lisbonn")
    for bad in ("../../etc/passwd", "", "Europe", "\x00", "x" * 10_000):
        with pytest.raises(ToolFailed):
            await time(bad)
