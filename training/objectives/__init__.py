"""What is trained: modules whose forward pass turns a batch of views into one loss."""
