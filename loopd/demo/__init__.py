"""Three cities on one machine: the flow of §12.1, played from outside through the commands and the HTTP API."""
