"""Sessions, their messages and the logs of runs, kept durably."""
