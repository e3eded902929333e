"""What blocks and backbones are, and what they are built from."""
