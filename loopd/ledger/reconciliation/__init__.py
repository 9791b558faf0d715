"""Reconciliation: what is between two cities, payments and what discharged them, as both sides' books have it."""
