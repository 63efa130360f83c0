"""TLC on the TLA+ modules of specs/, and logs of the kernel as behaviours of them."""
