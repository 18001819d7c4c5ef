"""Runs: identity, store, lease, execution, and transfer between stores."""
