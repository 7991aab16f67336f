"""The parts of ``benchmarks/cost.py``: fixtures, cold processes, the streaming limit, tasks and the table."""
