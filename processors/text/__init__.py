"""Written text for a voice: sentences as they stream in, and what is said of markup."""
