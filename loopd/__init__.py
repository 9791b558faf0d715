"""loopd: a node of the LOOP protocol (Local Optimization with Overflow Protocol)."""

__version__ = "0.1.0"
