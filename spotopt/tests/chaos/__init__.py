"""Many optimizations of many clusters under faults, judged by records that the product does not write."""
