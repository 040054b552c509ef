"""Pages of clusters, AWS accounts and the way to the first scan."""
