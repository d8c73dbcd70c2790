"""What commands read: data sets of photos with masks, and queries of a search."""
