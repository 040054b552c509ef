"""Decide: plain-Python rules that turn a snapshot of a cluster into a plan."""
