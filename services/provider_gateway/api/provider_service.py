"""ProviderService: convert in, one call, convert out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from behest.provider.v1 import provider_service_pb2 as pb
from behest.provider.v1 import provider_service_pb2_grpc as pb_grpc
from chassis.rpc import current_call
from provider_gateway.api import convert, convert_budgets, convert_embeddings
from provider_gateway.operations.budget_list import BudgetList
from provider_gateway.operations.counts import TokenCounts
from provider_gateway.operations.embeddings import Embeddings
from provider_gateway.operations.response_cache import Answering
from provider_gateway.operations.routes import Routes


class ProviderServicer(pb_grpc.ProviderServiceServicer):
    """Serves the contract."""

    def __init__(self, chats: Answering, embeddings: Embeddings, counts: TokenCounts, routes: Routes, budgets: BudgetList) -> None:
        self._chats, self._embeddings, self._counts, self._routes, self._budgets = chats, embeddings, counts, routes, budgets

    async def Chat(self, request: pb.ChatRequest, context: object) -> pb.ChatResponse:
        """Answers a conversation at once."""
        result = await self._chats.complete(convert.request_from(request), current_call().deadline)
        return pb.ChatResponse(result=convert.result_to(result))

    async def StreamChat(self, request: pb.StreamChatRequest, context: object) -> AsyncIterator[pb.StreamChatResponse]:
        """Answers a conversation as it is produced."""
        async with aclosing(self._chats.stream(convert.request_from(request.request), current_call().deadline)) as batches:
            async for batch in batches:
                yield convert.response_to(batch)

    async def ListModels(self, request: pb.ListModelsRequest, context: object) -> pb.ListModelsResponse:
        """Lists the models that can be called now."""
        return pb.ListModelsResponse(models=[convert.model_to(model) for model in self._routes.models(request.provider)])

    async def ListProviders(self, request: pb.ListProvidersRequest, context: object) -> pb.ListProvidersResponse:
        """Lists the configured providers."""
        return pb.ListProvidersResponse(providers=[convert.provider_to(status) for status in self._routes.providers()])

    async def Embed(self, request: pb.EmbedRequest, context: object) -> pb.EmbedResponse:
        """Turns texts into vectors."""
        result = await self._embeddings.embed(convert_embeddings.embed_request_from(request), current_call().deadline)
        return convert_embeddings.embed_response_to(result)

    async def CountTokens(self, request: pb.CountTokensRequest, context: object) -> pb.CountTokensResponse:
        """Counts what a conversation would cost to read."""
        count = await self._counts.count(convert.request_from(request.request), current_call().deadline)
        return convert_embeddings.count_to(count)

    async def ListBudgets(self, request: pb.ListBudgetsRequest, context: object) -> pb.ListBudgetsResponse:
        """Lists the caps that hold for the caller's tenant."""
        page = await self._budgets.page(current_call().tenant, request.budget_key, request.page_size, request.page_token)
        return pb.ListBudgetsResponse(
            budgets=[convert_budgets.budget_to(status) for status in page.budgets], next_page_token=page.next_page_token
        )
