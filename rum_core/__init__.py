"""RUM: recommendation with user memory networks, as plain functions over tensors and tables."""
