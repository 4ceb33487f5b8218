"""Events to Kafka and commands from it: settings, connections, CloudEvents, publishing, topics.

Only settings, cloud_events and publishing can be imported where aiokafka is not installed; services import the rest when Kafka is on.
"""
