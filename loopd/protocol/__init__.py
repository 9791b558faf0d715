"""What LOOP says, as pure functions: documents, identifiers, money, distance, cost, signing strings. No I/O, no clock."""
