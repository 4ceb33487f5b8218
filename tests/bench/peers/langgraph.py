"""LangGraph: the documented tool loop (a StateGraph with a ToolNode) on an instant model, with its SQLite or PostgreSQL checkpointer."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from tests.bench.loop import ANSWER, INSTRUCTIONS, QUESTION, TURNS
from tests.bench.meters import Meter, stored_bytes
from tests.bench.worker import Sample


@tool
async def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


class InstantModel(BaseChatModel):
    """Calls the tool until its last turn, then answers."""

    @property
    def _llm_type(self) -> str:
        return "instant"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        turn = sum(message.type == "ai" for message in itertools.takewhile(lambda m: m.type != "human", reversed(messages))) + 1
        usage = {"input_tokens": 100, "output_tokens": 10, "total_tokens": 110}
        if turn < TURNS:
            calls = [{"name": "add", "args": {"a": turn, "b": 1}, "id": f"call_{turn}"}]
            message = AIMessage("", tool_calls=calls, usage_metadata=usage)
        else:
            message = AIMessage(ANSWER, usage_metadata=usage)
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        return self._generate(messages)


def build(checkpointer: BaseCheckpointSaver[Any]) -> Any:
    """The compiled graph: model, tools, and back, until the model calls none."""
    model, system = InstantModel(), ("system", INSTRUCTIONS)

    async def call_model(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke([system, *state["messages"]])]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", call_model)
    graph.add_node("tools", ToolNode([add]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile(checkpointer=checkpointer)


class LangGraph:
    """Runs of the loop. `durability` is LangGraph's: sync waits for each checkpoint, async (its default) writes beside the next step."""

    def __init__(self, graph: Any, database: Path | None, durability: str) -> None:
        self._graph = graph
        self._database = database
        self._durability = durability
        self._threads = itertools.count()

    async def measure(self, concurrency: int, runs: int, size: bool = False) -> Sample:
        """CPU, wall and bytes of so many runs, so many at a time."""
        files = [self._database] if self._database and size else []
        before = stored_bytes(files)
        meter = Meter([os.getpid()])
        left = iter(range(runs))
        await asyncio.gather(*(self._each(left) for _ in range(concurrency)))
        spent = meter.spent()
        stored = stored_bytes(files) - before
        turns = runs * TURNS
        return {"cpu": spent.cpu / turns, "wall": spent.wall / turns, "disk": spent.disk / runs, "stored": stored / runs}

    async def _each(self, left: Any) -> None:
        for _ in left:
            config = {"configurable": {"thread_id": f"thread-{next(self._threads)}"}, "recursion_limit": 3 * TURNS}
            state = await self._graph.ainvoke({"messages": [HumanMessage(QUESTION)]}, config, durability=self._durability)
            assert state["messages"][-1].content == ANSWER
            assert len(state["messages"]) == 2 * TURNS


@contextlib.asynccontextmanager
async def open_langgraph(folder: str, durability: str) -> AsyncIterator[LangGraph]:
    """LangGraph on a database of its own."""
    database = Path(folder) / f"langgraph-{durability}.db"
    async with AsyncSqliteSaver.from_conn_string(str(database)) as saver:
        await saver.setup()
        yield LangGraph(build(saver), database, durability)


@contextlib.asynccontextmanager
async def open_langgraph_postgres(url: str, durability: str) -> AsyncIterator[LangGraph]:
    """LangGraph on a PostgreSQL database, with a pool of connections as its documentation shows."""
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
    from psycopg.rows import dict_row
    from psycopg_pool import AsyncConnectionPool

    connection = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    async with AsyncConnectionPool(url, min_size=4, max_size=16, kwargs=connection, open=False) as pool:
        saver = AsyncPostgresSaver(pool)  # type: ignore[arg-type] # rows are dictionaries, as it wants
        await saver.setup()
        yield LangGraph(build(saver), None, durability)
