"""The backends behind the ports of operations/ports.py."""
