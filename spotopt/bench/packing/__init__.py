"""Packing whole workloads from scratch: cost against proven bounds."""
