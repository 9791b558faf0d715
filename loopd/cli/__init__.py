"""The operator's commands. They decide nothing: the daemon does."""
