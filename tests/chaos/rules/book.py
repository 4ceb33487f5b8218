"""All rules by the names under which they are reported."""

from __future__ import annotations

from collections.abc import Mapping

from chaos.rules import Rule, effects, logs, records, sessions

RULES: Mapping[str, Rule] = {
    rule.__name__.replace("_", " "): rule
    for rule in (
        logs.at_rest,
        logs.gapless,
        logs.one_terminal_event,
        logs.rows_equal_logs,
        logs.one_outcome_a_call,
        logs.accepted_runs_exist,
        logs.requests_run_once,
        logs.acknowledged_appends_are_kept,
        logs.acknowledged_commands_are_kept,
        logs.streams_equal_logs,
        logs.limits_hold,
        logs.usage_is_a_sum,
        logs.nothing_failed_by_a_defect,
        effects.effects_happen_once,
        effects.intent_comes_first,
        effects.outcomes_are_true,
        effects.the_ledger_agrees,
        sessions.messages_are_well_formed,
        sessions.messages_are_those_of_the_logs,
        sessions.forks_share_their_beginning,
        sessions.one_run_at_a_time,
        sessions.messages_of_runs_stay_together,
        sessions.the_queue_keeps_its_order,
        sessions.session_events_are_those_of_the_runs,
        sessions.session_streams_equal_sessions,
        records.kafka_holds_every_event,
        records.kafka_keeps_the_order_of_sessions,
        records.letters_are_settled_once,
    )
}
