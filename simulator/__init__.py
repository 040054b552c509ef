"""A world to run against without an AWS account: machines, clusters, prices, time."""
