"""What can be had: this city's records and what other cities announced, indexed and searched (§8.1)."""
