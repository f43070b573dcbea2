"""Botfarm's server: holds the pool of test accounts and leases them to tests."""
