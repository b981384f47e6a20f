"""When not to trust a translation: intervals that hold, and what they cannot tell."""
