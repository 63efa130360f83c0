"""The tools of a gateway's tests: a fake platform, a clock, faults on purpose, and looks at a store."""
