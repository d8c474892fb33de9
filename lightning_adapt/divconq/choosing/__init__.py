"""How rows are chosen: copies left out, the number of clusters, quotas and draws, weights between rounds."""
