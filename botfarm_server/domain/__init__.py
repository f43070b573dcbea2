"""The rules of leasing: plain functions of state and time, without I/O."""
