"""behest.agent.v1.AgentService."""

from __future__ import annotations

from behest.agent.v1 import agent_pb2
from behest.agent.v1 import agent_service_pb2 as pb
from behest.agent.v1.agent_service_pb2_grpc import AgentServiceServicer
from orchestrator.domain.values import Agent
from orchestrator.operations.agents import Agents


class AgentServicer(AgentServiceServicer):
    """Tells which agents can be given orders."""

    def __init__(self, agents: Agents) -> None:
        self._agents = agents

    async def ListAgents(self, request: pb.ListAgentsRequest, context: object) -> pb.ListAgentsResponse:
        """Lists agents, sorted by name."""
        bodies = [_body(agent) for agent in self._agents.all()]
        shown = [body for body in bodies if request.include_hidden or not body.hidden]
        return pb.ListAgentsResponse(agents=shown, default_agent=self._agents.default)

    async def GetAgent(self, request: pb.GetAgentRequest, context: object) -> pb.GetAgentResponse:
        """Gets one agent."""
        return pb.GetAgentResponse(agent=_body(self._agents.get(request.name)))


def _body(agent: Agent) -> agent_pb2.Agent:
    assert isinstance(agent.body, agent_pb2.Agent)
    return agent.body
