"""Tests with nulls: each module tests one thing and says what it rests on and what defeats it."""
