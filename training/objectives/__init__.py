"""What is trained: modules whose forward pass maps a batch to a loss."""
