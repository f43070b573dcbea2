"""Clients, servers and a database under faults, and a checker of what came of it."""
