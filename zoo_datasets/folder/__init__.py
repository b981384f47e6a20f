"""A user's own images: pairs, two unpaired domains, or single images."""
