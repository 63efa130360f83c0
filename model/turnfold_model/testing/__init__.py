"""What tests of a gateway use: a fake platform, a clock, faults on purpose, and looks at a store."""
