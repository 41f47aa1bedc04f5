"""Row statistics of logits: each is one file, and the rule goes over all of them."""
