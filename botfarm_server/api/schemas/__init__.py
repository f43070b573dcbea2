"""The wire format: what each call takes and answers, a module for each resource.

Durations are seconds, and a deadline is told as the seconds that remain, so that no
two clocks are ever compared. Unknown fields are refused by name.
"""
