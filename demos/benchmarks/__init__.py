"""How quick and how safe the explorer is, measured in a browser."""
