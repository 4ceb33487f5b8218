"""What the command's options say reaches the order."""

from __future__ import annotations

import typing

import pytest
import typer.testing

from behest.run.v1 import run_pb2
from suite.cli.app import OnBusy, Priority, app
from suite.cli.ordering import Order

POLICIES = typing.get_args(typing.get_args(OnBusy)[0])
PRIORITIES = typing.get_args(typing.get_args(Priority)[0])


@pytest.mark.feature("R6")
def test_every_strategy_of_the_contract_is_an_option_and_the_default_rejects() -> None:
    said = [Order("x", on_busy=policy).request().on_busy for policy in POLICIES]
    assert said == [value for value in run_pb2.BusyPolicy.values() if value]
    assert Order("x").request().on_busy == run_pb2.BUSY_POLICY_REJECT


@pytest.mark.feature("R22")
def test_every_priority_of_the_contract_is_an_option_and_the_default_is_normal() -> None:
    said = [Order("x", priority=priority).request().priority for priority in PRIORITIES]
    assert said == [value for value in run_pb2.RunPriority.values() if value]
    assert Order("x").request().priority == run_pb2.RUN_PRIORITY_NORMAL


@pytest.mark.parametrize("option", ["--on-busy", "--priority"])
def test_a_word_that_is_none_is_a_mistake_in_usage(option: str) -> None:
    result = typer.testing.CliRunner().invoke(app, ["run", "hello", option, "perhaps"])
    assert result.exit_code == 2 and "perhaps" in result.output
