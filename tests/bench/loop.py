"""The order that every contender carries out: an instant model calls a trivial tool in each turn and answers in the last."""

from __future__ import annotations

TURNS = 10
INSTRUCTIONS = "You are a calculator. Use the tool."
QUESTION = "Add one to each of the numbers from one to nine."
ANSWER = "Two to ten."
INPUT_TOKENS, OUTPUT_TOKENS = 100, 10
