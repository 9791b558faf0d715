"""What LOOP says, as pure functions: documents, ids, money, distance, cost, signing strings. No I/O, no clock."""
