"""What the node costs, measured beside what its parts cost alone: `python -m bench --help`."""
