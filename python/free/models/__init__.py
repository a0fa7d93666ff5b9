"""Networks and the way they are guided and stored."""
