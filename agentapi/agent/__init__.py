"""The in-cluster agent: watches one cluster, reports what it sees, carries out signed commands."""

VERSION = "1.0.0"
