"""Many lanes against a platform that limits its rate."""
