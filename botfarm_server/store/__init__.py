"""The only place that knows SQL.

Each function takes an open connection and runs in the caller's transaction; which
transaction that is, the services decide.
"""
