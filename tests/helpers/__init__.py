"""Stand-ins for published networks, sounds, servers and small models: what several test modules use."""
